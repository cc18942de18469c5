"""TensorFlow is loaded without what Keras would import and nothing here uses."""

import subprocess
import sys

WITHOUT = """\
import threading
from nucleiseg.loading import without_unused_packages

found = []

def find():
    import sklearn
    found.append(sklearn)

with without_unused_packages():
    try:
        import sklearn
    except ImportError as error:
        print("refused", error.name)
    thread = threading.Thread(target=find)
    thread.start()
    thread.join()
print("another thread found", len(found))
import sklearn, matplotlib
print("afterwards found", sklearn.__name__, matplotlib.__name__)
"""

LOADING = """\
import sys
from nucleiseg.devices import import_tensorflow

import_tensorflow()
print(sorted({"keras", "sklearn", "matplotlib"} & set(sys.modules)))
import matplotlib.figure
from sklearn.isotonic import IsotonicRegression
"""


def run(code):
    """What a Python of its own prints, line by line."""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()


def test_packages_are_refused_for_a_while_and_in_one_thread():
    assert run(WITHOUT) == [
        "refused sklearn",
        "another thread found 1",
        "afterwards found sklearn matplotlib",
    ]


def test_tensorflow_is_loaded_without_them():
    assert run(LOADING) == ["['keras']"]
