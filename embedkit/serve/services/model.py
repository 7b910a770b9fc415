"""ModelService: what is loaded, what each model takes and gives; loading and unloading."""

from pathlib import Path

import grpc

from embedkit.bundle import find_bundle
from embedkit.bundle.manifest import check_model_name
from embedkit.serve.engine import Engine
from embedkit.serve.loaded import LoadedModel
from embedkit.serve.services.failure import answering
from embedkit.wire.proto import model_pb2, model_pb2_grpc

__all__ = ["ModelServicer", "describe_model"]


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """Describes the engine's models and changes which ones they are.

    Who may load and unload is decided before these methods, by the guard.

    Args:
        engine: The loaded models.
        models: The folder of all models, and the only place to load from.
        max_message_bytes: Told to clients, so that they can cut their requests.
        max_images: Most images in one call; likewise.
    """

    def __init__(
        self, engine: Engine, *, models: Path, max_message_bytes: int, max_images: int
    ) -> None:
        self._engine = engine
        self._models = models
        self._max_message_bytes = max_message_bytes
        self._max_images = max_images

    @answering
    def ListModels(
        self, request: model_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> model_pb2.ListModelsResponse:
        """List every loaded version, with the server's limits."""
        return model_pb2.ListModelsResponse(
            models=[describe_model(model) for model in self._engine.models],
            max_message_bytes=self._max_message_bytes,
            max_images_per_request=self._max_images,
        )

    @answering
    def GetModel(
        self, request: model_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> model_pb2.Model:
        """Describe one model, by default its latest loaded version."""
        return describe_model(self._engine.get(request.name, request.version))

    @answering
    def LoadModel(
        self, request: model_pb2.LoadModelRequest, context: grpc.ServicerContext
    ) -> model_pb2.Model:
        """Load a version, by default the latest in the folder, and describe it.

        A version that is loaded is read again and takes its own place.
        """
        check_model_name(request.name)
        path = find_bundle(self._models, request.name, request.version)
        return describe_model(self._engine.load(path))

    @answering
    def UnloadModel(
        self, request: model_pb2.UnloadModelRequest, context: grpc.ServicerContext
    ) -> model_pb2.UnloadModelResponse:
        """Give a version up; calls that reached it are answered."""
        self._engine.unload(request.name, request.version)
        return model_pb2.UnloadModelResponse()


def describe_model(model: LoadedModel) -> model_pb2.Model:
    """Return the message of a loaded model."""
    manifest, scoring = model.bundle.manifest, model.scoring
    return model_pb2.Model(
        name=model.name,
        version=model.version,
        model_digest=model.digest,
        height=model.spec.height,
        width=model.spec.width,
        channels=model.spec.channels,
        dim=manifest.dim,
        outputs=[name.upper() for name in model.answers],
        class_names=scoring.head.class_names if scoring.head is not None else (),
        provider=model.provider,
        precision=model.precision,
        heads=model.bundle.names("heads"),
        detectors=model.bundle.names("detectors"),
        manifest_json=manifest.to_bytes().decode(),
        max_batch_size=model.limits.max_batch_size,
        ood_detector=scoring.detector_name,
        ood_threshold=scoring.threshold.value if scoring.threshold is not None else 0.0,
    )
