"""From Keras to LiteRT: the same answers, short names, and no code of a stranger's file ever run."""

from __future__ import annotations

import json
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

import compresskit as ck
from compresskit.data import Split
from compresskit.litert import inspect
from compresskit.litert import model as files
from compresskit.litert.runtime import outputs

pytestmark = pytest.mark.train

tf_keras = pytest.importorskip("tf_keras")
import tensorflow as tf  # noqa: E402
from tensorflow.core.protobuf import saved_model_pb2  # noqa: E402

from compresskit.training import keras_files  # noqa: E402
from compresskit.training.architectures import ARCHITECTURES, build  # noqa: E402
from compresskit.training.convert import convert_path, main, to_checkpoint, to_keras, to_tflite  # noqa: E402

LAYERS = {
    "digit_reader": ["conv1", "conv2", "dense", "head"],
    "lenet_300_100": ["dense1", "dense2", "head"],
    "lenet5": ["conv1", "conv2", "dense", "head"],
    "big_teacher": ["conv1", "conv2", "conv3", "conv4", "conv5", "dense", "head"],
    "small_student": [
        "conv",
        *(f"block{i}_{kind}" for i in (1, 2, 3, 4) for kind in ("depthwise", "pointwise")),
        "head",
    ],
}


def stirred(model):
    """Give biases and running statistics values of their own, as training would."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    return model


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_the_file_computes_what_the_model_computes(name, digits):
    model = stirred(build(name, seed=3))
    tflite = to_tflite(model)
    images = digits.test.images[:64]
    expected = model(images[..., None].astype(np.float32) / 255, training=False).numpy()
    assert np.abs(outputs(tflite, images) - expected).max() <= 1e-4 * np.abs(expected).max()
    assert [layer.name for layer in inspect.layers(tflite)] == LAYERS[name]
    names = [tensor.name.decode() for tensor in inspect.files.read(tflite).subgraphs[0].tensors]
    assert len(set(names)) == len(names)
    assert not [tensor for tensor in names if ";" in tensor or "StatefulPartitionedCall" in tensor]


def test_parameters_are_those_of_the_literature():
    counts = {"digit_reader": 421_642, "lenet_300_100": 266_610, "lenet5": 431_080}
    assert {name: build(name).count_params() for name in counts} == counts
    with pytest.raises(ValueError, match=r"name is 'lenet6'.*choose one of digit_reader"):
        build("lenet6")


def test_a_reshape_whose_sizes_are_computed_while_running_is_no_hindrance():
    """The head of Keras's own MobileNets: SHAPE, STRIDED_SLICE and PACK make the new shape, in whole numbers."""
    image = tf_keras.Input((8, 8, 3))
    x = tf_keras.layers.Conv2D(6, 3, activation="relu")(image)
    x = tf_keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = tf_keras.layers.Reshape((4,))(tf_keras.layers.Conv2D(4, 1)(x))
    checkpoint = to_checkpoint(tf_keras.Model(image, x), "reshaped")
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    examples = Split(images, np.zeros(40, int))
    made = files.read(checkpoint.tflite)
    sizes = {files.operator_name(made, op): int(op.outputs[0]) for op in made.subgraphs[0].operators}
    told = files.expose(checkpoint.tflite, [int(made.subgraphs[0].outputs[0]), sizes["PACK"]])
    for model in (checkpoint, ck.Checkpoint("tells its sizes", told)):
        for step in (ck.Quantize(), ck.Quantize(activations=32)):
            small = ck.compress(model, ck.Recipe(step), examples)
            agree = ck.evaluate(small, examples).predictions == ck.evaluate(checkpoint, examples).predictions
            assert agree.mean() > 0.7


def test_the_seed_decides_the_initial_weights_and_nothing_else_does():
    first = build("small_student", seed=2)
    tf_keras.utils.set_random_seed(99)
    second, other = build("small_student", seed=2), build("small_student", seed=3)
    pairs = list(zip(first.get_weights(), second.get_weights(), other.get_weights(), strict=True))
    assert all(np.array_equal(a, b) for a, b, _ in pairs)
    assert not any(np.array_equal(a, c) for a, _, c in pairs if a.ndim > 1)


def test_weights_that_are_no_numbers_never_reach_the_converter():
    model = build("lenet_300_100")
    kernel = model.get_layer("dense2").kernel.numpy()
    kernel[3, 4] = -np.inf
    model.get_layer("dense2").kernel.assign(kernel)
    with pytest.raises(ValueError, match=r"weight dense2/kernel:0 holds 1 values that are NaN or infinite"):
        to_tflite(model)


def test_a_checkpoint_goes_to_keras_and_back_unchanged():
    model = stirred(build("small_student"))
    checkpoint = to_checkpoint(model, "mine")
    again = to_checkpoint(to_keras(checkpoint), "mine")
    assert again.tflite == checkpoint.tflite
    assert again.keras == checkpoint.keras
    model.compile(optimizer="adam", loss="mse")
    assert keras_files.to_archive(model) == checkpoint.keras  # without the optimizer
    with pytest.raises(ValueError, match=r"'mine' was made from a \.tflite file, which cannot be trained"):
        to_keras(type(checkpoint)("mine", checkpoint.tflite, None))


@pytest.fixture(scope="module", params=["tf_keras", "keras"])
def keras(request):
    """Both generations of Keras."""
    return pytest.importorskip(request.param)


def sequential(keras, *layers):
    return keras.Sequential([keras.Input((28, 28, 1)), *layers, keras.layers.Flatten(), keras.layers.Dense(10)])


@pytest.mark.parametrize("form", ["model.keras", "model.h5", "saved_model"])
def test_models_of_both_generations_come_in(keras, form, tmp_path, digits):
    model = sequential(keras, keras.layers.Conv2D(4, 3, activation="relu", name="first"), keras.layers.MaxPooling2D())
    source, target = tmp_path / form, tmp_path / "out.tflite"
    if form != "saved_model":
        model.save(source)
    else:
        model.export(source)
    assert main([str(source), str(target)]) == 0
    images = digits.test.images[:16]
    expected = np.asarray(model(images[..., None].astype(np.float32) / 255))
    assert np.abs(outputs(target.read_bytes(), images) - expected).max() < 1e-5
    if form != "saved_model":
        assert inspect.layers(target.read_bytes())[0].name == "first"
        trainable = keras_files.from_archive(target.with_suffix(".keras").read_bytes())
        assert np.abs(np.asarray(trainable(images[..., None].astype(np.float32) / 255)) - expected).max() < 1e-5


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_layer_is_refused_and_its_code_not_run(keras, suffix, tmp_path, capsys):
    trace = tmp_path / "trace"

    def mischief(x, path=str(trace)):
        __import__("pathlib").Path(path).write_text("was here")
        return x

    source = tmp_path / f"model{suffix}"
    sequential(keras, keras.layers.Lambda(mischief, output_shape=(28, 28, 1))).save(source)
    trace.unlink(missing_ok=True)
    assert main([str(source), str(tmp_path / "out.tflite")]) == 1
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 1
    assert "has a Lambda layer, which holds code" in json.loads(lines[0])["error"]
    assert not trace.exists()
    assert not (tmp_path / "out.tflite").exists()


def altered(path: Path, change) -> Path:
    """Change the description in a .keras archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config["config"]["layers"])
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (
            {"module": "os", "class_name": "function", "config": "system", "registered_name": "function"},
            r"os\.function",
        ),
        ({"module": "os", "class_name": "system", "config": {}}, r"os\.system"),
        ({"module": "keras.utils", "class_name": "function", "config": "get_file"}, r"keras\.utils\.function"),
        ({"module": "keras.src.saving", "class_name": "load_model", "config": {}}, r"load_model"),
        ({"module": "builtins", "class_name": "exec", "config": "1"}, r"builtins\.exec"),
        ({"class_name": "TFOpLambda", "config": {"function": "io.write_file"}}, r"io\.write_file"),
        ({"class_name": "__lambda__", "config": {"value": "4wEAAAA="}}, "__lambda__"),
        ({"class_name": "TFSMLayer", "config": {"filepath": "/somewhere"}}, "TFSMLayer"),
    ],
)
def test_a_description_that_names_other_code_is_refused(keras, part, sentence, tmp_path):
    source = tmp_path / "model.keras"
    sequential(keras, keras.layers.Conv2D(4, 3, activation="relu")).save(source)

    def change(layers):
        layers[1]["config"]["activation"] = part

    with pytest.raises(ValueError, match=sentence):
        convert_path(altered(source, change))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("absent.keras", None, "is not a file"),
        ("empty.keras", b"", "is not a Keras model file"),
        ("text.h5", b"hello", "is not a Keras model file"),
        ("cut.keras", b"PK\x03\x04", "is not a Keras model file"),
    ],
)
def test_files_that_are_no_models_are_refused(name, content, sentence, tmp_path, capsys):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main([str(tmp_path / name), str(tmp_path / "out.tflite")]) == 1
    assert sentence in json.loads(capsys.readouterr().out)["error"]


def test_folders_and_weights_alone_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is a folder without saved_model\.pb"):
        convert_path(tmp_path)
    build("small_student").save_weights(tmp_path / "weights.h5")
    with pytest.raises(ValueError, match="holds weights only"):
        convert_path(tmp_path / "weights.h5")


def test_an_archive_that_fills_the_disk_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(60 * 10**6))
    with pytest.raises(ValueError, match=r"bomb.keras would unpack to 0.1 GB"):
        convert_path(tmp_path / "bomb.keras")


def test_a_path_that_climbs_out_of_an_archive_is_not_followed(tmp_path):
    source = tmp_path / "in" / "model.keras"
    source.parent.mkdir()
    tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3)]).save(source)
    with zipfile.ZipFile(source, "a") as archive:
        for name in ("../../climbed.txt", "assets/../../../climbed.txt"):
            archive.writestr(name, "was here")
    convert_path(source)
    assert [each.name for each in tmp_path.iterdir()] == ["in"]


class Table(tf.Module):
    """Looks words up, and so has code that is run when it is loaded."""

    def __init__(self):
        words = tf.lookup.KeyValueTensorInitializer(["a"], [1.0])
        self.table = tf.lookup.StaticHashTable(words, 0.0)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "x")])
    def answer(self, x):
        return {"y": self.table.lookup(x)}


class Writer(tf.Module):
    """Writes a file whenever it is called."""

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, "x")])
    def answer(self, x):
        tf.io.write_file("/nowhere/was_here", "")
        return {"y": 2 * x}


@pytest.mark.parametrize(
    ("module", "words"),
    [(Table, r"HashTableV2, which does more|a resource whose code"), (Writer, "calls WriteFile, which does more")],
)
def test_a_saved_model_that_is_a_program_is_refused(module, words, tmp_path):
    made = module()
    tf.saved_model.save(made, str(tmp_path / "saved"), signatures=made.answer)
    with pytest.raises(ValueError, match=words):
        convert_path(tmp_path / "saved")


def test_what_a_saved_model_runs_on_loading_is_not_run(tmp_path):
    trace = tmp_path / "trace"
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 4))
        answer = v1.saved_model.predict_signature_def({"x": x}, {"y": tf.matmul(x, tf.ones((4, 3)))})
        builder = v1.saved_model.Builder(str(tmp_path / "saved"))
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": answer}, main_op=tf.io.write_file(str(trace), "was here")
        )
        builder.save()
    with pytest.raises(ValueError, match="SavedModel of TensorFlow 1"):
        convert_path(tmp_path / "saved")
    file = tmp_path / "saved" / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    model.meta_graphs[0].object_graph_def.nodes.add().user_object.identifier = "_generic_user_object"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="calls WriteFile"):
        convert_path(tmp_path / "saved")
    for node in model.meta_graphs[0].graph_def.node:
        node.op = "ReadVariableOp" if node.op == "WriteFile" else node.op
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="an operation that is run on loading"):
        convert_path(tmp_path / "saved")
    file.write_bytes(b"no protocol buffer")
    with pytest.raises(ValueError, match="damaged"):
        convert_path(tmp_path / "saved")
    assert not trace.exists()


def test_what_cannot_be_converted_is_named(tmp_path):
    keras = pytest.importorskip("keras")
    with pytest.raises(ValueError, match=r"layer 'memory' \(LSTM\) goes through its input in a loop"):
        to_tflite(sequential(keras, keras.layers.Reshape((28, 28)), keras.layers.LSTM(4, name="memory")))

    @keras.saving.register_keras_serializable()
    class Mine(keras.layers.Layer):
        def call(self, x):
            return x

    sequential(keras, Mine()).save(tmp_path / "mine.h5")
    del keras.saving.get_custom_objects()["Custom>Mine"]
    with pytest.raises(ValueError, match=r"mine.h5 has a class of your own, '.*Mine'"):
        convert_path(tmp_path / "mine.h5")


def test_a_model_object_becomes_a_checkpoint_that_can_be_trained(keras, digits):
    model = sequential(keras, keras.layers.Conv2D(4, 3, activation="relu", name="first"), keras.layers.MaxPooling2D())
    checkpoint = ck.load_model(model)  # converted in a process of its own
    assert checkpoint.layers[0].name == "first"
    images = digits.test.images[:16]
    expected = np.asarray(model(images[..., None].astype(np.float32) / 255))
    assert np.abs(outputs(checkpoint.tflite, images) - expected).max() < 1e-5
    again = to_keras(checkpoint)(images[..., None].astype(np.float32) / 255)
    assert np.abs(np.asarray(again) - expected).max() < 1e-5


def test_a_model_is_archived_alike_on_any_thread():
    model = build("lenet_300_100")
    found = []
    thread = threading.Thread(target=lambda: found.append(keras_files.to_archive(model)))
    thread.start()
    thread.join()
    assert found == [keras_files.to_archive(model)]
