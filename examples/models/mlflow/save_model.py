"""Trains the example's models on the iris data that scikit-learn brings, and packs each as SageMaker takes it.

`python save_model.py DIRECTORY` writes DIRECTORY/NAME.tar.gz for every name below, and the same bytes each time. A
model's answers name it (`setosa by tree`), so that whoever asks an endpoint sees which one answered.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow.sklearn
import numpy as np
from mlflow.models import infer_signature
from numpy.typing import NDArray
from pack import pack
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.tree import DecisionTreeClassifier

_SEED = 20
# What `save_model` writes of the moment and the machine, and what stands there instead.
_FIXED = {"model_uuid": "'0'", "model_id": "null", "utc_time_created": "'2026-01-01 00:00:00.000000'"}


@dataclass(frozen=True)
class Recipe:
    """How a model is made, what it is trained to answer, and what is done to its directory at last."""

    classifier: BaseEstimator
    answers: Callable[[NDArray[np.str_]], object] = lambda names: names
    spoil: Callable[[Path], None] = lambda directory: None


RECIPES = {
    "tree": Recipe(DecisionTreeClassifier(max_depth=3, random_state=_SEED)),
    "logistic": Recipe(LogisticRegression(max_iter=500, random_state=_SEED)),
    "forest": Recipe(RandomForestClassifier(n_estimators=10, max_depth=3, random_state=_SEED)),
    # Trained on sparse labels, it answers a sparse matrix, which is no JSON: it loads, /ping says 200, every invocation
    # is a 500.
    "broken": Recipe(
        OneVsRestClassifier(LogisticRegression(max_iter=500, random_state=_SEED)),
        answers=LabelBinarizer(sparse_output=True).fit_transform,
    ),
    # Uploaded without its weights: the server ends with code 1.
    "incomplete": Recipe(
        DecisionTreeClassifier(max_depth=3, random_state=_SEED),
        spoil=lambda directory: (directory / "model.pkl").unlink(),
    ),
}


def save(name: str, directory: Path) -> None:
    """Train the model `name` and save it in MLflow's format."""
    recipe, iris = RECIPES[name], load_iris()
    names = np.array([f"{iris.target_names[species]} by {name}" for species in iris.target])
    mlflow.sklearn.save_model(
        recipe.classifier.fit(iris.data, recipe.answers(names)),
        directory,
        signature=infer_signature(iris.data),
        pip_requirements=["scikit-learn"],  # else it starts a process to find out
        serialization_format="cloudpickle",
    )
    about = directory / "MLmodel"
    text = about.read_text()
    for field, value in _FIXED.items():
        text = re.sub(rf"^{field}:.*$", f"{field}: {value}", text, flags=re.MULTILINE)
    about.write_text(text)
    recipe.spoil(directory)


def main(destination: Path) -> None:
    """Save and pack every model."""
    destination.mkdir(parents=True, exist_ok=True)
    for name in RECIPES:
        with TemporaryDirectory() as scratch:
            directory = Path(scratch) / "model"
            save(name, directory)
            pack(directory, destination / f"{name}.tar.gz")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
