#!/usr/bin/env python3
"""Writes small models that scikit-learn, XGBoost and LightGBM train, with rows and what the libraries predict for them.

Needs the packages in requirements.txt. What is written is part of the repository."""

import json
import pathlib
import warnings

import lightgbm
import numpy as np
import onnx
import onnxmltools
import onnxruntime
import pandas as pd
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as Floats
from skl2onnx import convert_sklearn, to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, SVR

OUT = pathlib.Path(__file__).parent
ROWS = 5
TARGETS = {"": 17, "ai.onnx.ml": 3}
TENSORS = {"zipmap": False}
warnings.simplefilter("ignore")

flowers, kinds = load_iris(return_X_y=True)
flowers = flowers.astype(np.float32)[::4]
kinds = kinds[::4]
species = np.array(["setosa", "versicolor", "virginica"])[kinds]
cells, malignant = load_breast_cancer(return_X_y=True)
cells, malignant = cells[:60, :8].astype(np.float32), malignant[:60]
patients, progress = load_diabetes(return_X_y=True)
patients, progress = patients[:40].astype(np.float32), progress[:40]


def predictions(model, rows):
    if not hasattr(model, "predict"):
        return [model.transform(rows)]
    found = [model.predict(rows)]
    if hasattr(model, "predict_proba"):
        found.append(model.predict_proba(rows))
    return found


def sklearn_models():
    def export(model, x, y=None, options=None):
        model.fit(x) if y is None else model.fit(x, y)
        options = {id(model): options} if options else None
        graph = to_onnx(model, x[:1], options=options, target_opset=TARGETS)
        rows = x[-ROWS:]
        return model, graph, {"X": rows}, rows

    doubles = np.float64
    return {
        "logistic_maps": export(LogisticRegression(max_iter=500), flowers, kinds),
        "logistic_maps_of_strings": export(LogisticRegression(max_iter=500), flowers, species),
        "logistic_strings": export(LogisticRegression(max_iter=500), flowers, species, TENSORS),
        "random_forest": export(RandomForestClassifier(3, max_depth=3), flowers, kinds, TENSORS),
        "boosted_regressor": export(GradientBoostingRegressor(n_estimators=3), patients, progress),
        "boosted_classifier": export(GradientBoostingClassifier(n_estimators=2), flowers, species),
        "support_vectors": export(SVC(probability=True), flowers, species),
        "support_vectors_regressor": export(SVR(), patients, progress),
        "neighbors": export(KNeighborsClassifier(), flowers, species, TENSORS),
        "naive_bayes": export(GaussianNB(), flowers, kinds),
        "perceptron": export(make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=300)), flowers, species),
        "double_regressor": export(LinearRegression(), patients.astype(doubles), progress),
        "double_classifier": export(LogisticRegression(max_iter=500), flowers.astype(doubles), kinds, TENSORS),
        "clusters": export(KMeans(3, n_init=1), flowers),
        "components": export(make_pipeline(StandardScaler(), PCA(2)), flowers),
        "isolation_forest": export(IsolationForest(n_estimators=2, random_state=1), flowers),
        "several_outputs": export(MultiOutputRegressor(LinearRegression()), patients, np.c_[progress, progress * 2]),
    }


def column_models():
    frame = pd.DataFrame({
        "age": np.array([41, 20, 35, 60, np.nan, 33] * 20, np.float32),
        "city": ["Oslo", "Bergen", "Oslo", "Rome", "Rome", "Oslo"] * 20,
        "visits": np.array([1, 2, 3, 4, 5, 6] * 20, np.int64),
        "plan": ["a", "b", "c", "a", "b", "c"] * 20,
    })
    label = np.array(["no", "yes", "no", "yes", "yes", "no"] * 20)
    columns = ColumnTransformer([
        ("age", make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
        ("visits", StandardScaler(), ["visits"]),
        ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
        ("plan", OrdinalEncoder(), ["plan"]),
    ])
    model = Pipeline([("columns", columns), ("classifier", LogisticRegression())]).fit(frame, label)
    types = {"age": FloatTensorType, "city": StringTensorType, "visits": Int64TensorType, "plan": StringTensorType}
    types = [(name, kind([None, 1])) for name, kind in types.items()]
    rows = frame[:ROWS]
    feeds = {name: rows[[name]].to_numpy() for name in rows}
    feeds["age"] = feeds["age"].astype(np.float32)
    feeds = {name: column.astype(object) if column.dtype.kind not in "fi" else column for name, column in feeds.items()}
    found = {}
    for name, options in (("columns_maps", {}), ("columns", TENSORS)):
        graph = convert_sklearn(model, "m", types, options={id(model): options}, target_opset=TARGETS)
        found[name] = (model, graph, feeds, rows)
    words = frame[["city", "plan"]].to_numpy().astype(object)
    encoder = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(words, label)
    graph = convert_sklearn(encoder, "m", [("words", StringTensorType([None, 2]))], target_opset=TARGETS)
    found["one_hot"] = (encoder, graph, {"words": words[:ROWS]}, words[:ROWS])
    return found


def boosted_models():
    def export(model, x, y, convert, **options):
        model.fit(x, y)
        graph = convert(model, initial_types=[("input", Floats([None, x.shape[1]]))], target_opset=15, **options)
        return model, graph, {"input": x[:ROWS]}, x[:ROWS]

    trees = {"n_estimators": 3, "max_depth": 3}
    quiet = {**trees, "verbose": -1}
    xgb, lgbm = onnxmltools.convert_xgboost, onnxmltools.convert_lightgbm
    return {
        "xgboost": export(xgboost.XGBClassifier(**trees), cells, malignant, xgb),
        "xgboost_classes": export(xgboost.XGBClassifier(**trees), flowers, kinds, xgb),
        "xgboost_regressor": export(xgboost.XGBRegressor(**trees), patients, progress, xgb),
        "lightgbm_maps": export(lightgbm.LGBMClassifier(**quiet), cells, malignant, lgbm, zipmap=True),
        "lightgbm": export(lightgbm.LGBMClassifier(**quiet), flowers, kinds, lgbm, zipmap=False),
        "lightgbm_regressor": export(lightgbm.LGBMRegressor(**quiet), patients, progress, lgbm),
    }


def plain(value):
    """A row for JSON: a scalar where the row has one element, none for NaN."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return plain(value[0]) if len(value) == 1 else [plain(element) for element in value]
    return None if value != value else value


def main():
    reference = {}
    for name, (model, graph, feeds, rows) in {**sklearn_models(), **column_models(), **boosted_models()}.items():
        onnx.save(graph, OUT / f"{name}.onnx")
        session = onnxruntime.InferenceSession(graph.SerializeToString())
        got = dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds)))
        items = [{key: plain(column[row]) for key, column in feeds.items()} for row in range(ROWS)]
        outputs = [{} for _ in items]
        for key, value in got.items():
            for row, answer in enumerate(outputs):
                if isinstance(value, list):
                    answer[key] = [value[row][k] for k in sorted(value[row])]
                    answer[f"{key}.keys"] = sorted(value[row])
                else:
                    answer[key] = value[row : row + 1].tolist()[0]
        values = [[[row[k] for k in sorted(row)] for row in v] if isinstance(v, list) else v for v in got.values()]
        # The libraries are the reference; the export must agree with them.
        expected = predictions(model, rows)
        for value, want in zip(values, expected):
            value, want = np.asarray(value).reshape(np.shape(want)), np.asarray(want)
            if want.dtype.kind == "f":
                np.testing.assert_allclose(value.astype(float), want, rtol=1e-3, atol=1e-4, err_msg=name)
            else:
                assert (value == want).all(), name
        is_classifier = len(expected) == 2
        reference[name] = {"items": items, "outputs": outputs}
        if is_classifier:
            labels = [str(label) for label in model.classes_]
            best = [str(label) for label in expected[0]]
            reference[name] |= {"labels": labels, "label": best, "probabilities": expected[1].tolist()}
    text = ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in reference.items())
    (OUT / "reference.json").write_text("{" + text + "}\n")


main()
