from embedkit.wire.proto import tensor_pb2 as _tensor_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Output(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTPUT_UNSPECIFIED: _ClassVar[Output]
    EMBEDDING: _ClassVar[Output]
    FEATURES: _ClassVar[Output]
    TOKENS: _ClassVar[Output]
    OOD_SCORE: _ClassVar[Output]
    CLASS: _ClassVar[Output]

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    INTERACTIVE: _ClassVar[Priority]
    BULK: _ClassVar[Priority]
OUTPUT_UNSPECIFIED: Output
EMBEDDING: Output
FEATURES: Output
TOKENS: Output
OOD_SCORE: Output
CLASS: Output
PRIORITY_UNSPECIFIED: Priority
INTERACTIVE: Priority
BULK: Priority

class EmbedRequest(_message.Message):
    __slots__ = ("request_id", "model", "version", "encoded", "pixels", "outputs", "dtype", "dims", "priority")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DIMS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    version: str
    encoded: _tensor_pb2.EncodedImages
    pixels: _tensor_pb2.Tensor
    outputs: _containers.RepeatedScalarFieldContainer[Output]
    dtype: _tensor_pb2.DType
    dims: int
    priority: Priority
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., encoded: _Optional[_Union[_tensor_pb2.EncodedImages, _Mapping]] = ..., pixels: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., outputs: _Optional[_Iterable[_Union[Output, str]]] = ..., dtype: _Optional[_Union[_tensor_pb2.DType, str]] = ..., dims: _Optional[int] = ..., priority: _Optional[_Union[Priority, str]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("request_id", "embeddings", "features", "tokens", "ood_scores", "classes", "errors", "model_digest", "timing", "status")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    OOD_SCORES_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    embeddings: _tensor_pb2.Tensor
    features: _tensor_pb2.Tensor
    tokens: _tensor_pb2.Tensor
    ood_scores: _tensor_pb2.Tensor
    classes: Predictions
    errors: _containers.RepeatedCompositeFieldContainer[ItemError]
    model_digest: str
    timing: Timing
    status: _status_pb2.Status
    def __init__(self, request_id: _Optional[str] = ..., embeddings: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., features: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., tokens: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., ood_scores: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., classes: _Optional[_Union[Predictions, _Mapping]] = ..., errors: _Optional[_Iterable[_Union[ItemError, _Mapping]]] = ..., model_digest: _Optional[str] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class Predictions(_message.Message):
    __slots__ = ("labels", "probabilities", "class_names")
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAMES_FIELD_NUMBER: _ClassVar[int]
    labels: _tensor_pb2.Tensor
    probabilities: _tensor_pb2.Tensor
    class_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, labels: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., probabilities: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., class_names: _Optional[_Iterable[str]] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("index", "status")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    index: int
    status: _status_pb2.Status
    def __init__(self, index: _Optional[int] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("queue_ns", "decode_ns", "infer_ns", "batch_size")
    QUEUE_NS_FIELD_NUMBER: _ClassVar[int]
    DECODE_NS_FIELD_NUMBER: _ClassVar[int]
    INFER_NS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    queue_ns: int
    decode_ns: int
    infer_ns: int
    batch_size: int
    def __init__(self, queue_ns: _Optional[int] = ..., decode_ns: _Optional[int] = ..., infer_ns: _Optional[int] = ..., batch_size: _Optional[int] = ...) -> None: ...
