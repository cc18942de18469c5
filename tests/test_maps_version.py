"""Maps of the combined head are others than they were: what is of before says so."""

import json
from dataclasses import replace

import numpy as np
import pytest

from nucleiseg.bundle import read_bundle
from nucleiseg.bundle.tuned import write_tuned
from nucleiseg.cli import main
from nucleiseg.config import Config, InstancesConfig, ModelConfig
from nucleiseg.counting import prepare
from nucleiseg.counting.claim import claim, refuse_others
from nucleiseg.errors import RunError
from nucleiseg.inference.engine import Engine
from nucleiseg.runs import CountRun


@pytest.fixture
def archive(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.zeros((2, 64, 64), np.uint8))
    return str(tmp_path / "a.npz")


@pytest.fixture
def make(make_bundle):
    """Make a bundle with a head, as it is now or as it was."""

    def start(head, *, as_before=False):
        bundle = make_bundle(Config(model=ModelConfig(head=head))).paths
        if as_before:
            values = json.loads(bundle.info.read_text())
            del values["maps"]
            bundle.info.write_text(json.dumps(values))
        return read_bundle(bundle.root)

    return start


def plan_here(info, archive, **sections):
    return prepare([archive], info.paths.root, Config.model_validate(sections))


def test_a_bundle_of_before_is_told_to_be_tuned_anew(make, archive, caplog):
    info = make("combined", as_before=True)
    assert info.is_outdated
    plan_here(info, archive)
    assert "nucleiseg tune chooses them anew" in caplog.text
    tuned = write_tuned(info, InstancesConfig(), {})
    assert not tuned.is_outdated
    caplog.clear()
    plan_here(tuned, archive)
    assert "tune" not in caplog.text


@pytest.mark.parametrize("head", ["mask", "boundary", "distance"])
def test_of_other_heads_nothing_has_changed(make, archive, head):
    info = make(head, as_before=True)
    assert not info.is_outdated
    # Runs that were begun before can go on.
    settings = plan_here(info, archive).plan.settings
    assert "maps" not in settings
    assert "views" not in settings["instances"]


def test_a_plan_says_which_maps_and_views_it_is_for(make, archive):
    info = make("combined")
    once, twice = (
        plan_here(info, archive, instances={"views": n}).plan for n in (1, 2)
    )
    assert once.maps_version == twice.maps_version == 2
    assert twice.settings["instances"]["views"] == 2
    assert once.identity != twice.identity


def test_a_run_of_before_is_not_gone_on_with(make, archive, tmp_path):
    prepared = plan_here(make("combined"), archive)
    settings = {k: v for k, v in prepared.plan.settings.items() if k != "maps"}
    before = replace(prepared.plan, settings=settings)
    run = CountRun(tmp_path / "run")
    claim(run, before, prepared.config, prepared.model)
    with pytest.raises(RunError, match="planned by another version of nucleiseg"):
        Engine(run, n_threads=1)
    run.part(0).parent.mkdir(exist_ok=True)
    run.part(0).touch()
    with pytest.raises(RunError, match="makes other maps of this network"):
        refuse_others(run, prepared.plan)


def test_a_retry_that_is_refused_forgets_no_failure(make, archive, tmp_path, capsys):
    info = make("combined")
    prepared = plan_here(info, archive)
    run = CountRun(tmp_path / "run")
    claim(run, prepared.plan, prepared.config, info)
    failure = run.failure(0)
    failure.parent.mkdir(exist_ok=True)
    failure.write_text('{"n_failed": 1}')
    values = json.loads(info.paths.info.read_text())
    values["preprocess"]["low_percentile"] = 2.0
    info.paths.info.write_text(json.dumps(values))
    assert main(["retry", str(run.root)]) == 2
    assert "has changed since run" in capsys.readouterr().err
    assert failure.exists()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"base_filters": 16}, 16),
        ({"base_filters": 16, "resolution": "half"}, 8),
        ({"base_filters": 16, "filters": [64, 64]}, 64),
        ({"base_filters": 1, "resolution": "half"}, 1),
    ],
)
def test_filters_of_a_first_level_at_full_resolution(model, expected):
    assert ModelConfig.model_validate(model).full_filters == expected
