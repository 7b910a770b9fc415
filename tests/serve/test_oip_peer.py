"""The unmodified tritonclient package against our server, in an environment of its own."""

import os
import subprocess
import venv

import numpy as np
import pytest
from PIL import Image

from embedkit.serve.server import running_server

# tritonclient pins an older protobuf, and its stubs cannot be in one process with ours.
PYTHON = "EMBEDKIT_TRITON_PYTHON"

CLIENT = """
import io, queue, struct, sys
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as aio
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

address, folder = sys.argv[1:]
images, expected = np.load(folder + "/images.npy"), np.load(folder + "/expected.npy")
files = [open(f"{folder}/{i}.png", "rb").read() for i in range(len(images))]
client = triton.InferenceServerClient(address)

assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready("tiny") and client.is_model_ready("tiny", "1")
assert not client.is_model_ready("other")
assert client.get_server_metadata().name == "embedkit"
metadata = client.get_model_metadata("tiny", as_json=True)
assert [t["name"] for t in metadata["inputs"]] == ["images", "encoded"], metadata
kinds = {t["name"]: t["datatype"] for t in metadata["outputs"]}


def pixels(array):
    tensor = triton.InferInput("images", list(array.shape), "UINT8")
    tensor.set_data_from_numpy(array)
    return tensor


def encoded(data, shape):
    tensor = triton.InferInput("encoded", shape, "BYTES")
    tensor.set_data_from_numpy(np.array(data, np.object_).reshape(shape))
    return tensor


def check(result):
    np.testing.assert_allclose(result.as_numpy("embedding"), expected, atol=1e-6)


everything = client.infer("tiny", [pixels(images)], request_id="r1")
check(everything)
assert everything.get_response().id == "r1"
for name, kind in kinds.items():
    array = everything.as_numpy(name)
    assert len(array) == len(images) and array.dtype == triton_to_np_dtype(kind), name
wanted = [triton.InferRequestedOutput(n) for n in ("labels", "embedding")]
some = client.infer("tiny", [pixels(images)], outputs=wanted, model_version="1")
check(some)
assert some.as_numpy("features") is None
check(client.infer("tiny", [encoded(files, [len(files)])]))
check(client.infer("tiny", [encoded(files, [len(files), 1])], client_timeout=10))

answers = queue.Queue()


def keep(result, error):
    answers.put((result, error))


for _ in range(20):
    client.async_infer("tiny", [pixels(images)], keep)
for _ in range(20):
    result, error = answers.get(timeout=10)
    assert error is None, error
    check(result)


def refusal(**values):
    try:
        client.infer(**{"model_name": "tiny", "inputs": [pixels(images)], **values})
    except InferenceServerException as error:
        return error.status(), error.message()
    raise SystemExit(f"no refusal of {values}")


status, message = refusal(model_name="other")
assert status == "StatusCode.NOT_FOUND" and "other" in message, (status, message)
status, message = refusal(outputs=[triton.InferRequestedOutput("logits")])
assert status == "StatusCode.NOT_FOUND" and "logits" in message, (status, message)
status, message = refusal(inputs=[encoded([files[0], b"junk"], [2])])
assert status == "StatusCode.INVALID_ARGUMENT" and "image 1" in message, (status, message)
status, message = refusal(outputs=[triton.InferRequestedOutput("labels", class_count=2)])
assert status == "StatusCode.INVALID_ARGUMENT", (status, message)


async def by_asyncio():
    async with aio.InferenceServerClient(address) as twin:
        check(await twin.infer("tiny", [pixels(images)]))

import asyncio
asyncio.run(by_asyncio())
print("agreed")
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter with tritonclient, made for the test unless one is named."""
    if PYTHON in os.environ:
        return os.environ[PYTHON]
    folder = tmp_path_factory.mktemp("triton")
    venv.create(folder, with_pip=True)
    made = str(folder / "bin" / "python")
    install = [made, "-m", "pip", "install", "--quiet", "tritonclient[grpc]"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"tritonclient cannot be installed: {done.stderr[-200:]}")
    return made


@pytest.mark.peer
def test_tritonclient_works_unchanged(python, tiny_models, tmp_path, images, reference):
    features = reference(images)
    expected = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "expected.npy", expected)
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    script = tmp_path / "client.py"
    script.write_text(CLIENT)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with running_server(models=tiny_models, data_dir=tmp_path / "var") as address:
        done = subprocess.run(
            [python, str(script), address, str(tmp_path)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=120,
            check=False,
        )
    assert done.stdout == "agreed\n", done.stderr
