"""The models in the box: bundles that come with the package, called by their names."""

from pathlib import Path

from nucleiseg.errors import BundleError

DEFAULT_MODEL = "nuclei-fluo"
"""What is used where no model is named: nuclei in fluorescence images."""

_FOLDER = Path(__file__).parent / "models"


def list_models() -> list[str]:
    """List the names of the models in the box."""
    return sorted(path.name for path in _FOLDER.iterdir() if path.is_dir())


def find_model(model: str | Path | None) -> Path:
    """Find a model bundle by the name of one in the box, or by its folder.

    Parameters
    ----------
    model : str, Path or None
        None: the default one.

    Returns
    -------
    Path
        Absolute; that there is a bundle is not checked.

    Raises
    ------
    BundleError
        It could be one as well as the other.
    """
    if model is None:
        return _FOLDER / DEFAULT_MODEL
    if str(model) not in list_models():
        return Path(model).absolute()
    if Path(model).exists():
        raise BundleError(
            f"{model} is a model in the box, and a folder here is called so, too; name "
            f"{Path(model).absolute()} for the folder, or work in another one"
        )
    return _FOLDER / str(model)


def name_model(folder: Path) -> str | None:
    """Name the model in the box that a bundle's folder is; None for all others.

    What is kept of a model in a run: the package may lie elsewhere on another node.
    """
    return folder.name if folder.parent == _FOLDER else None
