"""Session: an ONNX graph in onnxruntime as an Embedder."""

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime

from embedkit.errors import BadImage, BundleDamaged, InvalidInput
from embedkit.preprocess import InputSpec, prepare
from embedkit.runtime.cores import usable_cores
from embedkit.runtime.providers import (
    ON_CUDA,
    PROVIDER_OPTIONS,
    check_started,
    choose_providers,
)
from embedkit.types import Embeddings, EncodedImages, Images

__all__ = ["Output", "Session"]

Output = npt.NDArray[np.float32]
"""One graph output, (n, ...) float32."""

# Larger batches gain nothing on a CPU (activations leave the cache) and cost memory.
CHUNK_IMAGES = 64
INPUT = "images"
_ERRORS_ONLY = 3


class Session:
    """An ONNX graph that takes uint8 images, loaded and ready; safe to use from many threads.

    Args:
        graph: ONNX bytes: input ``images`` uint8 (n, h, w, c), outputs ``embedding``,
            ``features`` and perhaps more, each (n, ...) float32.
        digest: The model digest that :attr:`digest` returns.
        spec: What the graph takes.
        providers: onnxruntime execution providers in order of preference, or ``cpu``, ``cuda``
            or ``tensorrt``; by default the CPU. One that is not installed or does not start is
            an error, never a silent change to the CPU.
        threads: Threads for one call, by default one per usable core.
        allow_cpu_fallback: Whether such a change is allowed after all, with a warning.

    Attributes:
        provider: The execution provider that it runs on.
        providers: That one, and those that run what it cannot.
        threads: Threads for one call.

    Raises:
        InvalidInput: If a provider is missing, or ``threads`` is below 1.
        BundleDamaged: If onnxruntime refuses the graph, or its inputs and outputs differ from
            what ``spec`` and this contract say.
    """

    def __init__(
        self,
        graph: bytes,
        digest: str,
        spec: InputSpec,
        *,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        allow_cpu_fallback: bool = False,
    ) -> None:
        wanted = choose_providers(providers, allow_cpu_fallback=allow_cpu_fallback)
        self._digest = digest
        self._spec = spec
        self.threads = usable_cores() if threads is None else threads
        self._session = _start(graph, wanted, self.threads)
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        self.provider = check_started(
            wanted, self.providers, allow_cpu_fallback=allow_cpu_fallback
        )
        self._is_bound = self.provider in ON_CUDA
        self._shapes = _check_graph(self._session, spec)

    @property
    def dim(self) -> int:
        """Dimensions of an embedding."""
        return self._shapes["embedding"][0]

    @property
    def digest(self) -> str:
        """The model digest, ``sha256:...``."""
        return self._digest

    @property
    def input(self) -> InputSpec:
        """What the graph takes."""
        return self._spec

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """Shape of each output without its first axis, by name."""
        return dict(self._shapes)

    def run(self, images: Images, outputs: Sequence[str]) -> dict[str, Output]:
        """Run the graph once.

        Args:
            images: (n, h, w, c) uint8 of exactly the input size; n may be any number.
            outputs: Names of the wanted outputs; only these are computed to their end.

        Returns:
            Each wanted output, (n, ...) float32.

        Raises:
            InvalidInput: If the images have another shape or dtype, or an output is unknown.
        """
        unknown = [name for name in outputs if name not in self._shapes]
        if unknown or not outputs:
            raise InvalidInput(
                f"expected outputs of {sorted(self._shapes)}, got {list(outputs)}"
            )
        shape = images.shape if isinstance(images, np.ndarray) else ()
        if len(shape) != 4 or images.dtype != np.uint8 or shape[1:] != self._spec.shape:
            got = f"{images.dtype} {shape}" if shape else type(images).__name__
            raise InvalidInput(f"expected uint8 images (n, {self._spec.shape}), got {got}")
        if len(images) == 0:
            return {name: np.empty((0, *self._shapes[name]), np.float32) for name in outputs}
        contiguous = np.ascontiguousarray(images)
        if self._is_bound:
            values = self._run_bound(contiguous, outputs)
        else:
            values = self._session.run(list(outputs), {INPUT: contiguous})
        return dict(zip(outputs, values, strict=True))

    def _run_bound(self, images: Images, outputs: Sequence[str]) -> Sequence[Output]:
        """Run with bound arrays: outputs stay on the device until all are done, then move once.

        A binding belongs to one call, so that calls of several threads do not meet.
        """
        device = "cuda" if self.provider in ON_CUDA else "cpu"
        binding = self._session.io_binding()
        binding.bind_cpu_input(INPUT, images)
        for name in outputs:
            binding.bind_output(name, device)
        self._session.run_with_iobinding(binding)
        values: Sequence[Output] = binding.copy_outputs_to_cpu()
        return values

    def embed(self, images: Images | EncodedImages) -> Embeddings:
        """Return L2-normalised embeddings, (n, d) float32, in the order given.

        Args:
            images: uint8 (n, h, w, c) of any size, or image files.

        Raises:
            InvalidInput: If the images are not uint8 (n, h, w, c), or a file is not decodable.
        """
        return self.run_all(images, ("embedding",))["embedding"]

    def features(self, images: Images | EncodedImages) -> Embeddings:
        """Return features before normalisation, (n, d) float32, in the order given.

        Args:
            images: uint8 (n, h, w, c) of any size, or image files.

        Raises:
            InvalidInput: If the images are not uint8 (n, h, w, c), or a file is not decodable.
        """
        return self.run_all(images, ("features",))["features"]

    def run_all(
        self, images: Images | EncodedImages, outputs: Sequence[str]
    ) -> dict[str, Output]:
        """Prepare and run any number of images of any size, 64 at a time.

        Args:
            images: uint8 (n, h, w, c) of any size, or image files.
            outputs: Names of the wanted outputs.

        Raises:
            InvalidInput: As :meth:`run` and :func:`embedkit.preprocess.prepare`.
        """
        total = len(images)
        results: dict[str, Output] = {}
        for start in range(0, max(total, 1), CHUNK_IMAGES):
            end = min(start + CHUNK_IMAGES, total)
            try:
                prepared = prepare(images[start:end], self._spec)
            except BadImage as error:
                raise BadImage(f"images {start} to {end - 1}: {error}") from error
            chunk = self.run(prepared, outputs)
            if end - start == total:
                return chunk
            for name, values in chunk.items():
                whole = results.setdefault(
                    name, np.empty((total, *values.shape[1:]), np.float32)
                )
                whole[start:end] = values
        return results


def _start(
    graph: bytes, providers: Sequence[str], threads: int
) -> onnxruntime.InferenceSession:
    """An InferenceSession that logs errors only and sleeps when it has nothing to do."""
    if threads < 1:
        raise InvalidInput(f"expected at least 1 thread, got {threads}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Batch sizes vary from call to call, so memory planned for one of them fits no other.
    options.enable_mem_pattern = False
    # Idle workers of a server would otherwise burn the cores that decode images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A graph may name files to read weights from; below a device there are none.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    chosen = [(name, PROVIDER_OPTIONS.get(name, {})) for name in providers]
    try:
        return onnxruntime.InferenceSession(graph, options, providers=chosen)
    except Exception as error:  # onnxruntime's errors share no other base class.
        raise BundleDamaged(f"expected a graph that onnxruntime loads, got {error}") from error


def _check_graph(
    session: onnxruntime.InferenceSession, spec: InputSpec
) -> dict[str, tuple[int, ...]]:
    """Shapes of the outputs, after the graph's signature was compared with the contract."""
    inputs = [(node.name, node.type, tuple(node.shape[1:])) for node in session.get_inputs()]
    fixed = [node.name for node in session.get_inputs() if isinstance(node.shape[0], int)]
    if inputs != [(INPUT, "tensor(uint8)", spec.shape)] or fixed:
        raise BundleDamaged(
            f"expected one input {INPUT} uint8 (n, {spec.shape}) with dynamic n, "
            f"got {inputs}{' with fixed n' if fixed else ''}"
        )
    shapes = {}
    for node in session.get_outputs():
        shape = tuple(node.shape[1:])
        if node.type != "tensor(float)" or not all(isinstance(axis, int) for axis in shape):
            raise BundleDamaged(
                f"expected output {node.name!r} as float32 of fixed shape behind n, "
                f"got {node.type} {node.shape}"
            )
        shapes[node.name] = shape
    vectors = {name: shapes.get(name) for name in ("embedding", "features")}
    if len(vectors["embedding"] or ()) != 1 or vectors["features"] != vectors["embedding"]:
        raise BundleDamaged(
            f"expected embedding and features of one shape (n, d), got {shapes}"
        )
    return shapes
