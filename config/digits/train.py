"""Train the handwritten digit classifier and rewrite every file that is derived from it.

`python train.py` writes, next to this file, `digits.onnx` (the model), `accuracy.json` (its
accuracy on digits held out from training) and `samples/` (PNG images and the values that a
correct server computes for them). It fails if the model is not accurate enough, if the ONNX
graph disagrees with scikit-learn, or if a sample image is misclassified.

It does not depend on the server: the image preprocessing below specifies, in Python, what the
server has to do with an image, so that the samples can be checked here.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageOps
from scipy.ndimage import affine_transform
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

DIRECTORY = Path(__file__).resolve().parent

SEED = 20240
HELD_OUT_SHARE = 0.25
REQUIRED_ACCURACY = 0.97

SIDE = 8
INK_MAX = 16  # The data set counts inked pixels in 4x4 blocks: 0 is background, 16 full ink.
HIDDEN_LAYERS = (128, 64)  # The last one is the `embedding` output.
DISTORTED_COPIES = 32
# Widely supported; newer versions would only exclude older runtimes.
OPSET = 17
IR_VERSION = 8

# Stricter than the tolerance of the Rust tests for other runtimes.
REQUIRED_AGREEMENT = 1e-5

DATA_SET = "Optical Recognition of Handwritten Digits (UCI), as shipped by scikit-learn's load_digits"
DATA_SET_SOURCE = "https://doi.org/10.24432/C50P49"
DATA_SET_CREATORS = "E. Alpaydin and C. Kaynak"
DATA_SET_LICENSE = "CC BY 4.0"


def main():
    """Run everything in order; the results do not depend on the number of cores."""
    data = load_and_split()
    with threadpool_limits(limits=1):
        classifier = train(data)
    model = build_onnx(classifier)
    onnx.checker.check_model(model, full_check=True)
    path = DIRECTORY / "digits.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))

    session = open_session(path)
    agreement = check_agreement(session, classifier, data)
    report = measure(session, data, agreement)
    write_json(DIRECTORY / "accuracy.json", report)
    write_samples(session, data)

    ops = [node.op_type for node in model.graph.node]
    print(f"digits.onnx: {path.stat().st_size} bytes, opset {OPSET}, ops {', '.join(ops)}")
    print(f"largest difference to scikit-learn: {agreement:.1e}, same digit for all {len(data.pixels)}")
    print(f"held-out accuracy: {report['accuracy']:.4f} ({report['correct']} of {report['held_out']})")
    for form, accuracy in report["accuracy_through_images"].items():
        print(f"held-out accuracy through {form}: {accuracy:.4f}")
    if report["accuracy"] < REQUIRED_ACCURACY:
        raise SystemExit(f"accuracy {report['accuracy']:.4f} is below the required {REQUIRED_ACCURACY}")


# Data


@dataclass(frozen=True)
class Data:
    """The data set and the row numbers of its two parts.

    `pixels` is [1797, 64] with values 0..16, row major; `labels` is [1797].
    """

    pixels: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    held_out: np.ndarray


def load_and_split():
    """Load the digits and hold out a stratified quarter of them."""
    digits = load_digits()
    train_rows, held_out_rows = train_test_split(
        np.arange(len(digits.target)),
        test_size=HELD_OUT_SHARE,
        random_state=SEED,
        stratify=digits.target,
    )
    return Data(digits.data, digits.target, np.sort(train_rows), np.sort(held_out_rows))


def distort(images, rng):
    """Return the images [n, 8, 8], each with a small random rotation, scaling, shear and shift."""
    center = np.full(2, (SIDE - 1) / 2)
    distorted = np.empty_like(images)
    for row, image in enumerate(images):
        angle = np.deg2rad(rng.uniform(-10, 10))
        scale = np.exp(rng.uniform(-0.1, 0.1, size=2))
        shear = rng.uniform(-0.15, 0.15)
        turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle) + shear, np.cos(angle)]]
        matrix = np.array(turn) * scale
        offset = center - matrix @ center + rng.uniform(-0.7, 0.7, size=2)
        distorted[row] = affine_transform(image, matrix, offset, order=1)
    return distorted


# Training


def train(data):
    """Fit the network on the training part and its distorted copies; inputs are 0..1."""
    rng = np.random.default_rng(SEED)
    images = data.pixels[data.train].reshape(-1, SIDE, SIDE)
    copies = [images] + [distort(images, rng) for _ in range(DISTORTED_COPIES)]
    inputs = np.concatenate(copies).reshape(-1, SIDE * SIDE) / INK_MAX
    labels = np.tile(data.labels[data.train], len(copies))
    # These settings were chosen by five-fold cross-validation within the training part.
    classifier = MLPClassifier(
        HIDDEN_LAYERS,
        alpha=0.3,
        batch_size=512,
        learning_rate_init=1e-3,
        max_iter=30,
        random_state=SEED,
    )
    with warnings.catch_warnings():
        # Not converging is expected: the number of epochs is one of the settings.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return classifier.fit(inputs, labels)


# Export


def build_onnx(classifier):
    """Return the classifier as an ONNX model: raw pixels in, probabilities and embedding out."""
    initializers = [numpy_helper.from_array(np.array([INK_MAX], dtype=np.float32), "ink_max")]
    nodes = [helper.make_node("Div", ["pixels", "ink_max"], ["ink"], name="scale")]
    value = "ink"
    layers = list(zip(classifier.coefs_, classifier.intercepts_, strict=True))
    for number, (weight, bias) in enumerate(layers, start=1):
        names = [f"weight_{number}", f"bias_{number}"]
        for name, array in zip(names, (weight, bias), strict=True):
            initializers.append(numpy_helper.from_array(array.astype(np.float32), name))
        is_last = number == len(layers)
        linear = "logits" if is_last else f"linear_{number}"
        nodes.append(helper.make_node("Gemm", [value, *names], [linear], name=f"dense_{number}"))
        if is_last:
            nodes.append(helper.make_node("Softmax", [linear], ["probabilities"], axis=1, name="softmax"))
        else:
            value = "embedding" if number == len(layers) - 1 else f"hidden_{number}"
            nodes.append(helper.make_node("Relu", [linear], [value], name=f"relu_{number}"))

    graph = helper.make_graph(
        nodes,
        "digits",
        [tensor("pixels", SIDE * SIDE, "8x8 image, row major, 0 (background) to 16 (ink)")],
        [
            tensor("probabilities", 10, "probability of each digit, 0 to 9"),
            tensor("embedding", HIDDEN_LAYERS[-1], "last hidden layer after its activation"),
        ],
        initializers,
        doc_string="Classifier of handwritten digits.",
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="config/digits/train.py",
        doc_string=(
            "Classifier of handwritten digits: a multi-layer perceptron with the hidden layers "
            f"{HIDDEN_LAYERS}. Trained on: {DATA_SET}, by {DATA_SET_CREATORS}, {DATA_SET_LICENSE}."
        ),
    )
    helper.set_model_props(
        model,
        {
            "data_set": DATA_SET,
            "data_set_creators": DATA_SET_CREATORS,
            "data_set_licence": DATA_SET_LICENSE,
            "data_set_source": DATA_SET_SOURCE,
            "labels": ",".join(str(label) for label in classifier.classes_),
        },
    )
    return model


def tensor(name, width, doc):
    """Describe a float32 input or output of shape [batch, width]."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width], doc_string=doc)


# Measuring


def open_session(path):
    """Open the exported file in ONNX Runtime, on one thread so that sums keep their order."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(session, pixels):
    """Return (probabilities [n, 10], embedding [n, 64]) for pixels [n, 64] of 0..16."""
    return session.run(["probabilities", "embedding"], {"pixels": pixels.astype(np.float32)})


def check_agreement(session, classifier, data):
    """Compare the exported graph with scikit-learn on the whole data set.

    Returns the largest difference of a probability; ends the script when it is too large.
    """
    probabilities, embedding = run(session, data.pixels)
    expected = classifier.predict_proba(data.pixels / INK_MAX)
    difference = float(np.abs(probabilities - expected).max())
    hidden = data.pixels / INK_MAX
    for weight, bias in zip(classifier.coefs_[:-1], classifier.intercepts_[:-1], strict=True):
        hidden = np.maximum(hidden @ weight + bias, 0)
    hidden_difference = float(np.abs(embedding - hidden).max())
    same = bool((probabilities.argmax(axis=1) == expected.argmax(axis=1)).all())
    if max(difference, hidden_difference) > REQUIRED_AGREEMENT or not same:
        raise SystemExit(
            f"digits.onnx differs from scikit-learn: probabilities {difference:.1e}, embedding "
            f"{hidden_difference:.1e}, allowed {REQUIRED_AGREEMENT:.0e}, same digits: {same}"
        )
    return difference


def measure(session, data, agreement):
    """Return the contents of accuracy.json."""
    pixels, labels = data.pixels[data.held_out], data.labels[data.held_out]
    predicted = run(session, pixels)[0].argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, labels=range(10))
    pairs = [
        {"digit": int(digit), "read_as": int(read_as), "count": int(confusion[digit, read_as])}
        for digit, read_as in np.argwhere(confusion - np.diag(np.diag(confusion)))
    ]
    through_images = {}
    for form in IMAGE_FORMS:
        seen = np.stack([preprocess(form.draw(row)) for row in pixels])
        hits = run(session, seen)[0].argmax(axis=1) == labels
        through_images[form.name] = round(float(hits.mean()), 4)
    return {
        "accuracy": round(float((predicted == labels).mean()), 4),
        "correct": int((predicted == labels).sum()),
        "held_out": len(data.held_out),
        "trained_on": len(data.train),
        "distorted_copies": DISTORTED_COPIES,
        "split": f"stratified by digit, {HELD_OUT_SHARE:.0%} held out",
        "seed": SEED,
        "largest_difference_to_scikit_learn": float(f"{agreement:.1e}"),
        "recall": [round(float(share), 4) for share in np.diag(confusion) / confusion.sum(axis=1)],
        "confused": sorted(pairs, key=lambda pair: -pair["count"]),
        "confusion": confusion.tolist(),
        "accuracy_through_images": through_images,
    }


# Images


@dataclass(frozen=True)
class ImageForm:
    """A way to draw the 64 pixels as a grayscale image."""

    name: str
    digit: int
    size: tuple[int, int]  # Width and height.
    resampling: Image.Resampling
    black_on_white: bool

    def draw(self, pixels):
        """Draw 64 values of 0..16 as an 8-bit grayscale image."""
        # 0..16 in steps of one does not fit 0..255 exactly; rounding costs at most 0.032 of 16.
        grey = np.rint(pixels.reshape(SIDE, SIDE) * 255 / INK_MAX).astype(np.uint8)
        image = Image.fromarray(grey).resize(self.size, self.resampling)
        return ImageOps.invert(image) if self.black_on_white else image

    def file_name(self):
        """Name the sample of this form after its digit."""
        return f"digit-{self.digit}-{self.name}.png"


IMAGE_FORMS = [
    ImageForm("8x8", 7, (8, 8), Image.Resampling.NEAREST, False),
    ImageForm("128x128", 3, (128, 128), Image.Resampling.NEAREST, False),
    ImageForm("128x128-smooth", 5, (128, 128), Image.Resampling.BILINEAR, False),
    ImageForm("200x160-black-on-white", 2, (200, 160), Image.Resampling.NEAREST, True),
]


def preprocess(image):
    """Turn an image into 64 values of 0..16, as the server is expected to.

    Greyscale, area averaging to 8x8, inversion when the outermost pixels are brighter than the
    middle of the range on average (so the ink is dark), scaling. Sizes that are multiples of 8
    keep Pillow's box filter an exact area average.
    """
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.float64)
    border = np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
    if border.mean() > 127.5:
        grey = 255 - grey
    return (grey * INK_MAX / 255).reshape(-1)


# Samples


def write_samples(session, data):
    """Write one PNG per image form, and expected.json with the values that belong to them."""
    folder = DIRECTORY / "samples"
    folder.mkdir(exist_ok=True)
    images = []
    for form in IMAGE_FORMS:
        row = choose_row(session, data, form)
        path = folder / form.file_name()
        form.draw(data.pixels[row]).save(path, optimize=True)
        images.append({"file": path.name, **check_sample(session, data, row, path)})
    rows = [least_certain_row(session, data, digit) for digit in range(10)]
    vectors = [expected(session, data, row) for row in rows]
    write_json(folder / "expected.json", {"images": images, "vectors": vectors})


def choose_row(session, data, form):
    """Return the first held-out row of the digit that the model recognizes with confidence."""
    for row in data.held_out:
        if data.labels[row] == form.digit:
            probabilities = run(session, data.pixels[[row]])[0][0]
            if probabilities[form.digit] > 0.95:
                return row
    raise SystemExit(f"no held-out {form.digit} is read with confidence")


def least_certain_row(session, data, digit):
    """Return the held-out row of a digit that the model recognizes with the least confidence.

    Its probabilities are far from 0 and 1, so a difference between runtimes shows in them.
    """
    rows = data.held_out[data.labels[data.held_out] == digit]
    probabilities = run(session, data.pixels[rows])[0]
    certainty = np.where(probabilities.argmax(axis=1) == digit, probabilities[:, digit], np.inf)
    return rows[certainty.argmin()]


def check_sample(session, data, row, path):
    """Read a sample like the server does; exit with an error if it is misclassified."""
    with Image.open(path) as image:
        pixels = preprocess(image)
    probabilities = run(session, pixels[np.newaxis])[0][0]
    label = data.labels[row]
    if probabilities.argmax() != label:
        raise SystemExit(f"samples/{path.name} is read as {probabilities.argmax()}, expected {label}")
    error = np.abs(pixels - data.pixels[row]).max()
    print(
        f"samples/{path.name}: read as {label} with probability {probabilities[label]:.4f} after "
        f"preprocessing, pixels differ by at most {error:.3f} of {INK_MAX}"
    )
    return {
        **expected(session, data, row),
        "image_pixels": rounded(pixels),
        "image_probabilities": rounded(probabilities),
    }


def expected(session, data, row):
    """Return what the model computes for the exact 64 numbers of one row of the data set."""
    probabilities, embedding = run(session, data.pixels[[row]])
    return {
        "row": int(row),
        "label": int(data.labels[row]),
        "pixels": data.pixels[row].astype(int).tolist(),
        "probabilities": rounded(probabilities[0]),
        "embedding": rounded(embedding[0]),
    }


def rounded(values):
    """Round to seven decimal places, about the precision of float32."""
    return [round(float(value), 7) for value in values]


def write_json(path, value):
    """Write readable JSON: objects indented, lists of numbers on one line."""
    path.write_text(format_json(value) + "\n", encoding="utf-8")


def format_json(value, indent=""):
    """Format one value; `indent` is that of the line it starts on."""
    inner = indent + "  "
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(key)}: {format_json(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and value and isinstance(value[0], (dict, list)):
        lines = [inner + format_json(item, inner) for item in value]
        return "[\n" + ",\n".join(lines) + f"\n{indent}]"
    return json.dumps(value)


if __name__ == "__main__":
    main()
