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
            ("training: {optimizer: sgd}", "= 'sgd'", "'rmsprop' or 'adam'"),
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
