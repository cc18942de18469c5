"""Configuration: strict at every level, errors that help, and nothing lost on disk."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nucleiseg.config import Config, load_config
from nucleiseg.errors import ConfigError

SECTIONS = {name: field.annotation for name, field in Config.model_fields.items()}
KEYS = [
    (name, key) for name, section in SECTIONS.items() for key in section.model_fields
]


@pytest.fixture
def load(tmp_path):
    def load_text(text, *overrides):
        path = tmp_path / "lab.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, overrides)

    return load_text


@pytest.fixture
def refusal(load):
    """Load what must be refused, and return the one line that says why."""

    def refuse(text, *overrides):
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides)
        message = str(caught.value)
        assert "\n" not in message
        return message

    return refuse


class TestUnknownKeys:
    @pytest.mark.parametrize("section", SECTIONS)
    def test_misspelt_section_names_the_nearest(self, refusal, section):
        misspelt = section[:-1]
        message = refusal(f"{misspelt}: {{}}")
        assert f"unknown section {misspelt} " in message
        assert f"did you mean '{section}'?" in message
        assert "lab.yaml" in message

    @pytest.mark.parametrize(("section", "key"), KEYS)
    def test_misspelt_key_names_the_nearest(self, refusal, section, key):
        misspelt = key[:-1]
        message = refusal(f"{section}: {{{misspelt}: 7}}")
        assert f"unknown key {section}.{misspelt} (value 7)" in message
        assert f"did you mean '{key}'?" in message
        assert f"keys of {section}: " in message

    def test_nothing_near_lists_the_keys_without_a_guess(self, refusal):
        message = refusal("table: {qqq: 1}")
        assert "did you mean" not in message
        assert message.endswith("keys of table: format, pictures")

    def test_key_without_its_section_is_sent_there(self, refusal):
        assert "did you mean 'training.epochs'?" in refusal("epochs: 3")

    def test_key_in_another_section_is_sent_home(self, refusal):
        assert "did you mean 'training.epochs'?" in refusal("table: {epochs: 3}")

    def test_exact_key_elsewhere_wins_over_a_near_one_here(self, refusal):
        assert "did you mean 'data.archive'?" in refusal("training: {archive: a.npz}")

    def test_misspelt_override(self, refusal):
        message = refusal("", "training.epocs=3")
        assert "unknown key training.epocs" in message
        assert "did you mean 'epochs'?" in message

    @pytest.mark.parametrize("text", ["1: {}", "training: {1: 2}"])
    def test_key_that_is_no_text(self, refusal, text):
        assert "keys should be strings" in refusal(text)

    def test_key_that_is_a_list(self, refusal):
        assert "not YAML" in refusal("[a, b]: 1")

    def test_all_faults_are_told_at_once(self, refusal):
        message = refusal("training: {epocs: 3, batch_size: 0}\nmodl: {}")
        for part in ("training.epocs", "training.batch_size", "modl"):
            assert part in message


class TestValues:
    @pytest.mark.parametrize(
        ("text", "fault", "allowed"),
        [
            ("training: {epochs: '5'}", "training.epochs = '5'", "integer"),
            ("training: {epochs: 5.0}", "training.epochs = 5.0", "integer"),
            ("training: {epochs: true}", "training.epochs = True", "integer"),
            ("training: {epochs: 0}", "training.epochs = 0", "equal to 1"),
            ("training: {epochs: null}", "training.epochs = None", "integer"),
            ("training: {shuffle: 1}", "training.shuffle = 1", "boolean"),
            ("training: {learning_rate: 0}", "training.learning_rate = 0", "than 0"),
            (
                "training: {learning_rate: .nan}",
                "training.learning_rate = nan",
                "finite",
            ),
            ("training: {optimizer: sgd}", "= 'sgd'", "'rmsprop', 'adam' or 'adamw'"),
            ("training: {keep: Best}", "= 'Best'", "'last' or 'best'"),
            ("data: {images: 3}", "data.images = 3", "string"),
            ("data: {validation_share: 1}", "data.validation_share = 1", "less than 1"),
            ("model: {dropout: 1.0}", "model.dropout = 1.0", "less than 1"),
            ("instances: {threshold: 1}", "instances.threshold = 1", "less than 1"),
            ("inference: {tile_px: 100}", "inference.tile_px = 100", "multiple of 16"),
            ("inference: {batch_size: 1}", "inference.batch_size = 1", "equal to 2"),
            ("table: {format: xlsx}", "= 'xlsx'", "'csv', 'parquet' or 'notebook'"),
        ],
    )
    def test_refusal_names_key_value_and_what_is_allowed(
        self, refusal, text, fault, allowed
    ):
        message = refusal(text)
        assert fault in message
        assert "is not allowed" in message
        assert allowed in message

    def test_percentiles_in_order(self, refusal):
        message = refusal("preprocess: {low_percentile: 60, high_percentile: 40}")
        assert "low_percentile 60.0 must be below high_percentile 40.0" in message

    def test_context_leaves_a_core(self, refusal, load):
        message = refusal("inference: {tile_px: 128, context_px: 64}")
        assert "context_px 64" in message
        assert "tile_px 128" in message
        assert (
            load("inference: {tile_px: 144, context_px: 64}").inference.tile_px == 144
        )

    @pytest.mark.parametrize("value", ["3", "[1]", "text"])
    def test_section_that_is_none(self, refusal, value):
        message = refusal(f"table: {value}")
        assert "is not a section; its keys are format, pictures" in message

    def test_integer_serves_as_float(self, load):
        assert load("training: {learning_rate: 1}").training.learning_rate == 1.0


class TestYaml:
    @pytest.mark.parametrize(
        ("written", "value"),
        [
            ("1e-4", 1e-4),
            ("1E-4", 1e-4),
            ("1e+1", 10.0),
            ("2.5e-1", 0.25),
            (".5", 0.5),
            ("1.", 1.0),
            ("+1e-4", 1e-4),
            ("0.001", 0.001),
        ],
    )
    def test_float(self, load, written, value):
        for config in (
            load(f"training: {{learning_rate: {written}}}"),
            load("", f"training.learning_rate={written}"),
        ):
            assert config.training.learning_rate == value

    def test_whole_number_stays_whole(self, load):
        seed = load("training: {seed: 12}").training.seed
        assert seed == 12
        assert type(seed) is int

    def test_quoted_number_stays_text(self, load):
        assert load("data: {images: '1e-4'}").data.images == "1e-4"

    @pytest.mark.parametrize(
        ("text", "key"),
        [
            ("training:\n  epochs: 1\n  epochs: 2", "epochs"),
            ("table: {}\nmodel: {}\ntable: {}", "table"),
        ],
    )
    def test_key_that_stands_twice(self, refusal, text, key):
        assert f"'{key}' stands twice, the second time in line 3" in refusal(text)

    def test_same_key_in_two_sections_is_no_duplicate(self, load):
        config = load("training: {precision: float32}\ninference: {precision: float16}")
        assert config.inference.precision == "float16"

    @pytest.mark.parametrize(
        "text", ["", "# nothing\n", "training:\n", "training: null", "training: {}"]
    )
    def test_empty_is_the_defaults(self, load, text):
        assert load(text) == Config() == load_config()

    @pytest.mark.parametrize(
        ("text", "kind"), [("- 1", "list"), ("3", "int"), ("text", "str")]
    )
    def test_no_sections_at_all(self, refusal, text, kind):
        message = refusal(text)
        assert f"holds a {kind}, not sections" in message
        assert "lab.yaml" in message

    @pytest.mark.parametrize("text", ["a: [", "a: *b", "a:\n\t- b", "x\x00"])
    def test_not_yaml(self, refusal, text):
        message = refusal(text)
        assert "is not YAML" in message
        assert "lab.yaml" in message

    def test_never_makes_python_objects(self, refusal):
        assert "is not YAML" in refusal("data: !!python/object/apply:os.getcwd []")


class TestFiles:
    def test_missing_file_suggests_the_near_name(self, tmp_path):
        (tmp_path / "train.yaml").touch()
        (tmp_path / "other.yml").touch()
        with pytest.raises(ConfigError, match=r"trian\.yaml not found.*'train\.yaml'"):
            load_config(tmp_path / "trian.yaml")

    def test_missing_file_without_a_near_name(self, tmp_path):
        with pytest.raises(ConfigError, match=r"not found$"):
            load_config(tmp_path / "missing" / "train.yaml")

    def test_folder(self, tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(tmp_path)

    def test_other_encoding(self, tmp_path):
        path = tmp_path / "latin.yaml"
        path.write_bytes("data: {archive: Prüfling.npz}".encode("latin-1"))
        with pytest.raises(ConfigError, match=r"latin\.yaml cannot be read"):
            load_config(path)


class TestOverrides:
    @pytest.mark.parametrize(
        "override",
        ["training.epochs", "epochs=3", "=3", ".epochs=3", "training.=3", "training=3"],
    )
    def test_form(self, refusal, override):
        message = refusal("", override)
        assert message.startswith(f"--set {override}: expected section.key=value")

    def test_later_wins_and_both_win_over_the_file(self, load):
        config = load(
            "training: {epochs: 1, seed: 5}", "training.epochs=2", "training.epochs=3"
        )
        assert (config.training.epochs, config.training.seed) == (3, 5)

    def test_fills_a_section_that_is_commented_out(self, load):
        assert (
            load("training:\n  # epochs: 1", "training.epochs=2").training.epochs == 2
        )

    @pytest.mark.parametrize("value", ["'a=b.npz'", '"a=b.npz"', "a=b.npz"])
    def test_quotes_and_equals_signs(self, load, value):
        assert load("", f"data.archive={value}").data.archive == "a=b.npz"

    def test_null_unsets(self, load):
        config = load("training: {replicas: 2}", "training.replicas=null")
        assert config.training.replicas is None

    def test_list_is_refused_as_a_value(self, refusal):
        assert "training.epochs = [1, 2]" in refusal("", "training.epochs=[1, 2]")

    def test_empty_value_is_refused(self, refusal):
        assert "training.epochs = None" in refusal("", "training.epochs=")

    def test_value_that_is_not_yaml(self, refusal):
        message = refusal("", "training.epochs=[1")
        assert message == "--set training.epochs=[1: the value is not YAML"

    def test_key_below_a_key(self, refusal):
        assert "unknown key training.epochs.x" in refusal("", "training.epochs.x=1")

    def test_section_of_the_file_is_none(self, refusal):
        message = refusal("training: [1]", "training.epochs=2")
        assert "training is [1], not a section" in message

    def test_without_a_file_the_option_is_named(self):
        with pytest.raises(ConfigError, match=r"^--set: training\.epochs = 0 "):
            load_config(None, ["training.epochs=0"])


class TestCluster:
    @pytest.mark.parametrize("section", ["sbatch", "coordinator_sbatch"])
    @pytest.mark.parametrize(
        ("flag", "instead"),
        [
            ("array", "cluster.workers and cluster.throttle"),
            ("time", "cluster.walltime_min"),
            ("signal", "cluster.signal_delay_s"),
            ("gpus-per-node", "cluster.gpus"),
            ("gpus_per_node", "cluster.gpus"),
            ("--gpus-per-node", "cluster.gpus"),
            ("cpus_per_task", "cluster.cpus"),
            ("mem", "cluster.memory_gb"),
            ("--mem", "cluster.memory_gb"),
            ("nodes", "one node"),
            ("ntasks", "one task"),
            ("ntasks_per_node", "one task"),
            ("output", "logs go to the run directory"),
            ("error", "logs go to the run directory"),
            ("open-mode", "logs are appended to"),
            ("dependency", "workers wait for their coordinator"),
            ("requeue", "cluster.max_restarts"),
            ("chdir", "the folder they are submitted from"),
        ],
    )
    def test_taken_flag_is_sent_to_its_setting(self, refusal, section, flag, instead):
        message = refusal(f"cluster: {{{section}: {{{flag}: 1}}}}")
        assert f"cluster: {section} may not hold {flag}; use " in message
        assert instead in message
        assert "lab.yaml" in message

    @pytest.mark.parametrize("section", ["sbatch", "coordinator_sbatch"])
    def test_other_flags_are_free(self, load, section):
        flags = {"exclude": "node7", "exclusive": True, "nice": 5, "time-min": "0:10"}
        config = load(f"cluster: {{{section}: {flags}}}")
        assert getattr(config.cluster, section) == flags

    @pytest.mark.parametrize("value", ["1.5", "[a]", "null", "{a: 1}"])
    def test_flag_that_cannot_be_sent(self, refusal, value):
        assert "cluster.sbatch.nice" in refusal(
            f"cluster: {{sbatch: {{nice: {value}}}}}"
        )

    @pytest.mark.parametrize("key", ["walltime_min", "coordinator_walltime_min"])
    def test_warning_of_more_than_the_time_limit(self, load, refusal, key):
        message = refusal(f"cluster: {{{key}: 5, signal_delay_s: 300}}")
        assert "signal_delay_s 300 is a warning of more than the whole" in message
        assert "of 5 min; lower it" in message
        config = load(f"cluster: {{{key}: 5, signal_delay_s: 299}}")
        assert config.cluster.signal_delay_s == 299

    def test_setup_with_a_line_break(self, refusal):
        message = refusal('cluster: {setup: ["module purge\\nmodule load cuda"]}')
        assert r"line break in 'module purge\nmodule load cuda'; use two" in message

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("workers: 0", "cluster.workers = 0"),
            ("gpus: 0", "cluster.gpus = 0"),
            ("cpus: 1.5", "cluster.cpus = 1.5"),
            ("memory_gb: 0", "cluster.memory_gb = 0"),
            ("walltime_min: 4h", "cluster.walltime_min = '4h'"),
            ("coordinator: cpu", "cluster.coordinator = 'cpu'"),
            ("signal_delay_s: 541", "cluster.signal_delay_s = 541"),
            ("signal_delay_s: 4", "cluster.signal_delay_s = 4"),
            ("idle_min: 0", "cluster.idle_min = 0"),
            ("max_restarts: -1", "cluster.max_restarts = -1"),
            ("setup: module load cuda", "cluster.setup = 'module load cuda'"),
        ],
    )
    def test_value_that_is_not_allowed(self, refusal, text, fault):
        assert fault in refusal(f"cluster: {{{text}}}")

    def test_unknown_key_lists_those_there_are(self, refusal):
        message = refusal("cluster: {ntasks: 2}")
        assert "unknown key cluster.ntasks (value 2)" in message
        assert "keys of cluster: partition, account, qos, " in message


class TestSite:
    @pytest.fixture
    def load(self, tmp_path):
        """Load an experiment, a site and overrides; no experiment where it is None."""

        def load_texts(text, site, *overrides):
            paths = {"lab.yaml": text, "site.yaml": site}
            for name, content in paths.items():
                if content is not None:
                    (tmp_path / name).write_text(content, encoding="utf-8")
            path = None if text is None else tmp_path / "lab.yaml"
            return load_config(path, overrides, site=tmp_path / "site.yaml")

        return load_texts

    def test_gives_what_the_experiment_does_not(self, load):
        config = load(
            "training: {epochs: 3}\ncluster: {workers: 8, partition: mine}",
            "cluster: {partition: theirs, account: lab}\ninference: {device: cpu}",
        )
        assert config.training.epochs == 3
        cluster = config.cluster
        assert (cluster.workers, cluster.partition) == (8, "mine")
        assert cluster.account == "lab"
        assert config.inference.device == "cpu"
        assert config.explicit("cluster") == {
            "workers": 8,
            "partition": "mine",
            "account": "lab",
        }

    def test_overrides_win_over_both(self, load):
        config = load(
            "cluster: {partition: mine}",
            "cluster: {partition: theirs, account: lab, qos: long}",
            "cluster.partition=ours",
            "cluster.account=null",
        )
        cluster = config.cluster
        assert (cluster.partition, cluster.account, cluster.qos) == (
            "ours",
            None,
            "long",
        )

    def test_null_of_the_experiment_is_its_word(self, load):
        config = load("cluster: {account: null}", "cluster: {account: lab}")
        assert config.cluster.account is None

    @pytest.mark.parametrize("text", [None, "", "cluster:\n", "cluster: {}"])
    def test_without_words_of_the_experiment(self, load, text):
        assert load(text, "cluster: {account: lab}").cluster.account == "lab"

    def test_flags_are_one_value(self, load):
        config = load("cluster: {sbatch: {nice: 1}}", "cluster: {sbatch: {x11: true}}")
        assert config.cluster.sbatch == {"nice": 1}

    @pytest.mark.parametrize("site", ["", "# nothing", "cluster:\n"])
    def test_empty_one_changes_nothing(self, load, site):
        assert load("training: {epochs: 3}", site) == load("training: {epochs: 3}", "")

    @pytest.mark.parametrize(
        ("site", "words"),
        [
            ("cluster: {accout: lab}", "did you mean 'account'?"),
            ("clustr: {}", "did you mean 'cluster'?"),
            ("cluster: {gpus: 0}", "cluster.gpus = 0"),
            ("cluster: {sbatch: {array: 3}}", "may not hold array"),
            ("cluster: 3", "cluster = 3 is not a section"),
            ("- 1", "holds a list"),
            ("a: [", "is not YAML"),
        ],
    )
    @pytest.mark.parametrize("override", ["cluster.partition=x", "cluster.gpus=2"])
    def test_fault_is_its_own(self, load, site, words, override):
        with pytest.raises(ConfigError) as caught:
            load("cluster: {workers: 3}", site, override)
        message = str(caught.value)
        assert "site.yaml" in message
        assert "lab.yaml" not in message
        assert "--set" not in message
        assert words in message
        assert "\n" not in message

    def test_fault_of_the_experiment_is_not_the_sites(self, load):
        with pytest.raises(
            ConfigError, match=r"lab\.yaml: cluster\.gpus = 0"
        ) as caught:
            load("cluster: {gpus: 0}", "cluster: {account: lab}")
        assert "site.yaml" not in str(caught.value)

    def test_missing_one_is_named(self, tmp_path):
        with pytest.raises(ConfigError, match=r"site\.yaml not found"):
            load_config(None, site=tmp_path / "site.yaml")


class TestSaving:
    @settings(deadline=None, max_examples=50)
    @given(
        rate=st.floats(min_value=1e-300, max_value=1e300),
        low=st.floats(min_value=0, max_value=49),
        share=st.none() | st.floats(min_value=1e-9, max_value=0.99),
        seed=st.integers(min_value=0, max_value=2**70),
        shuffle=st.booleans(),
    )
    def test_round_trip_of_numbers(
        self, tmp_path_factory, rate, low, share, seed, shuffle
    ):
        config = Config.model_validate(
            {
                "training": {"learning_rate": rate, "seed": seed, "shuffle": shuffle},
                "preprocess": {"low_percentile": low},
                "data": {"validation_share": share},
            }
        )
        path = tmp_path_factory.mktemp("saved") / "config.yaml"
        path.write_text(config.to_yaml(), encoding="utf-8")
        assert load_config(path) == config

    @pytest.mark.parametrize(
        "name",
        [
            "X_and_y.npz",
            "plate 7: ä#1.h5",
            "- x",
            "null",
            "yes",
            "123",
            "1.5",
            ".5",
            "2024-01-01",
            " padded ",
            "two\nlines",
            "",
            "1e5",
        ],
    )
    def test_round_trip_of_names(self, load, name):
        config = Config.model_validate({"data": {"archive": name}})
        assert load(config.to_yaml()) == config

    def test_saved_one_has_every_key(self, load):
        config = load(Config().to_yaml())
        for section, model in SECTIONS.items():
            assert set(config.explicit(section)) == set(model.model_fields)


def test_frozen():
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.training.epochs = 3
    with pytest.raises(ValidationError, match="frozen"):
        config.training = config.training


def test_explicit_is_what_was_written(load):
    config = load("training: {epochs: 50}", "training.replicas=null")
    # Both are the defaults, and written all the same.
    assert config.explicit("training") == {"epochs": 50, "replicas": None}
    assert config.explicit("model") == {}


@pytest.mark.parametrize("section", SECTIONS)
def test_section_has_a_docstring(section):
    own = SECTIONS[section].__doc__
    assert own
    assert own != SECTIONS[section].__base__.__doc__


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_key_has_a_description(section, key):
    assert SECTIONS[section].model_fields[key].description
