"""Tabular models as scikit-learn, XGBoost and LightGBM export them, with labels, probabilities and named columns."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx

from cases import Case, DataSet

ROWS = 16
OPSETS = {"": 18, "ai.onnx.ml": 3}


def load(cache: Path) -> list[Case]:
    """Trains and exports the models, unless the cache has them."""
    directory = cache / "tabular"
    directory.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [_case(directory / f"{name}.onnx", model, requests) for name, (model, requests) in exports().items()]


def _case(path: Path, model: onnx.ModelProto, requests: list[dict]) -> Case:
    onnx.save(model, path)
    return Case(
        name=path.stem,
        path=path,
        outputs=[value.name for value in model.graph.output],
        data_sets=[DataSet(inputs) for inputs in requests],
        rtol=1e-4,
        by_magnitude=True,
        group="tabular",
    )


def exports() -> dict[str, tuple[onnx.ModelProto, list[dict]]]:
    """Each export with its requests, by name."""
    from sklearn import datasets

    flowers, iris = datasets.load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[iris]
    patients, progression = datasets.load_diabetes(return_X_y=True)
    return {
        **_classifiers(flowers, iris, names),
        **_regressors(patients, progression),
        **_pipelines(),
        **_boosted(flowers, iris, patients, progression),
    }


def _rows(table: np.ndarray, dtype=np.float32) -> list[dict]:
    picked = table[:: max(1, len(table) // ROWS)][:ROWS].astype(dtype)
    return [{"X": picked[:1]}, {"X": picked}]


def _convert(model, columns: int, double: bool = False, **options) -> onnx.ModelProto:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    kind = DoubleTensorType if double else FloatTensorType
    settings = {id(model): options} if options else None
    return to_onnx(model, initial_types=[("X", kind([None, columns]))], options=settings, target_opset=OPSETS)


def _classifiers(table: np.ndarray, numbers: np.ndarray, names: np.ndarray) -> dict:
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    models = {
        "logistic_zipmap": (LogisticRegression(max_iter=500), numbers, {}),
        "logistic_string_zipmap": (LogisticRegression(max_iter=500), names, {}),
        "logistic_string_columns": (LogisticRegression(max_iter=500), names, {"zipmap": "columns"}),
        "forest_string": (RandomForestClassifier(20, random_state=0), names, {"zipmap": False}),
        "tree_zipmap": (DecisionTreeClassifier(max_depth=4, random_state=0), numbers, {}),
        "boosting": (GradientBoostingClassifier(n_estimators=15, random_state=0), numbers, {"zipmap": False}),
        "neighbors": (KNeighborsClassifier(), numbers, {"zipmap": False}),
        "svc_zipmap": (SVC(probability=True, random_state=0), numbers, {}),
        "mlp_string": (MLPClassifier((16,), max_iter=400, random_state=0), names, {"zipmap": False}),
        "bayes_zipmap": (GaussianNB(), numbers, {}),
    }
    return {
        name: (_convert(model.fit(table, labels), table.shape[1], **options), _rows(table))
        for name, (model, labels, options) in models.items()
    }


def _regressors(table: np.ndarray, target: np.ndarray) -> dict:
    from sklearn.decomposition import PCA
    from sklearn.ensemble import GradientBoostingRegressor, IsolationForest, RandomForestRegressor
    from sklearn.linear_model import LinearRegression

    columns = table.shape[1]
    return {
        "linear": (_convert(LinearRegression().fit(table, target), columns), _rows(table)),
        "linear_fp64": (_convert(LinearRegression().fit(table, target), columns, double=True), _rows(table, np.float64)),
        "forest_regressor": (
            _convert(RandomForestRegressor(20, random_state=0).fit(table, target), columns), _rows(table)
        ),
        "gradient_regressor": (
            _convert(GradientBoostingRegressor(n_estimators=15).fit(table, target), columns), _rows(table)
        ),
        "pca": (_convert(PCA(3).fit(table), columns), _rows(table)),
        "isolation_forest": (_convert(IsolationForest(n_estimators=20, random_state=0).fit(table), columns), _rows(table)),
    }  # fmt: skip


def _pipelines() -> dict:
    """Named columns of different types, as a data frame has them."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
    import pandas

    generator = np.random.default_rng(0)
    frame = pandas.DataFrame({
        "age": generator.integers(18, 90, 200),
        "income": generator.gamma(3, 15000, 200),
        "city": generator.choice(["Oslo", "Lima", "Pune"], 200),
    })  # fmt: skip
    label = np.where((frame.age > 50) ^ (frame.city == "Oslo"), "buys", "leaves")
    columns = ColumnTransformer([
        ("numbers", StandardScaler(), ["age", "income"]), ("words", OneHotEncoder(handle_unknown="ignore"), ["city"]),
    ])  # fmt: skip
    pipeline = make_pipeline(columns, LogisticRegression(max_iter=500)).fit(frame, label)
    types = [
        ("age", Int64TensorType([None, 1])), ("income", FloatTensorType([None, 1])), ("city", StringTensorType([None, 1])),
    ]  # fmt: skip
    model = to_onnx(pipeline, initial_types=types, target_opset=OPSETS)
    request = lambda count: {
        "age": frame.age.to_numpy(np.int64)[:count, None],
        "income": frame.income.to_numpy(np.float32)[:count, None],
        "city": frame.city.to_numpy(object)[:count, None],
    }
    unknown = {**request(1), "city": np.array([["Atlantis"]], object)}
    return {"columns_zipmap": (model, [request(1), request(ROWS), unknown])}


def _boosted(flowers: np.ndarray, iris: np.ndarray, patients: np.ndarray, progression: np.ndarray) -> dict:
    import lightgbm
    import onnxmltools
    import xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    settings = {"n_estimators": 15, "max_depth": 4, "random_state": 0}
    kind = lambda table: [("X", FloatTensorType([None, table.shape[1]]))]
    trees = lambda library, model, table, target: getattr(onnxmltools, f"convert_{library}")(
        model.fit(table, target), initial_types=kind(table), target_opset=15
    )
    return {
        "xgboost_classifier": (
            trees("xgboost", xgboost.XGBClassifier(**settings), flowers, iris), _rows(flowers)
        ),
        "xgboost_regressor": (
            trees("xgboost", xgboost.XGBRegressor(**settings), patients, progression), _rows(patients)
        ),
        "lightgbm_classifier": (
            trees("lightgbm", lightgbm.LGBMClassifier(**settings, verbose=-1), flowers, iris), _rows(flowers)
        ),
        "lightgbm_regressor": (
            trees("lightgbm", lightgbm.LGBMRegressor(**settings, verbose=-1), patients, progression), _rows(patients)
        ),
    }  # fmt: skip
