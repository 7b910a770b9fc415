from embedkit.wire.proto import tensor_pb2 as _tensor_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    COSINE: _ClassVar[Metric]
    INNER_PRODUCT: _ClassVar[Metric]
    L2: _ClassVar[Metric]
METRIC_UNSPECIFIED: Metric
COSINE: Metric
INNER_PRODUCT: Metric
L2: Metric

class Collection(_message.Message):
    __slots__ = ("name", "dim", "metric", "kind", "model", "model_digest", "count", "sequence", "storage", "limits", "index")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STORAGE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    name: str
    dim: int
    metric: Metric
    kind: str
    model: str
    model_digest: str
    count: int
    sequence: int
    storage: str
    limits: CollectionLimits
    index: IndexState
    def __init__(self, name: _Optional[str] = ..., dim: _Optional[int] = ..., metric: _Optional[_Union[Metric, str]] = ..., kind: _Optional[str] = ..., model: _Optional[str] = ..., model_digest: _Optional[str] = ..., count: _Optional[int] = ..., sequence: _Optional[int] = ..., storage: _Optional[str] = ..., limits: _Optional[_Union[CollectionLimits, _Mapping]] = ..., index: _Optional[_Union[IndexState, _Mapping]] = ...) -> None: ...

class CollectionLimits(_message.Message):
    __slots__ = ("vectors", "payload_bytes")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    vectors: int
    payload_bytes: int
    def __init__(self, vectors: _Optional[int] = ..., payload_bytes: _Optional[int] = ...) -> None: ...

class IndexState(_message.Message):
    __slots__ = ("kind", "is_building", "sequence", "indexed", "tail", "removed", "memory_bytes", "builds", "error")
    KIND_FIELD_NUMBER: _ClassVar[int]
    IS_BUILDING_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    INDEXED_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUILDS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    kind: str
    is_building: bool
    sequence: int
    indexed: int
    tail: int
    removed: int
    memory_bytes: int
    builds: int
    error: str
    def __init__(self, kind: _Optional[str] = ..., is_building: _Optional[bool] = ..., sequence: _Optional[int] = ..., indexed: _Optional[int] = ..., tail: _Optional[int] = ..., removed: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., builds: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class CreateCollectionRequest(_message.Message):
    __slots__ = ("name", "dim", "model", "metric", "kind", "storage", "limits")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STORAGE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    name: str
    dim: int
    model: str
    metric: Metric
    kind: str
    storage: str
    limits: CollectionLimits
    def __init__(self, name: _Optional[str] = ..., dim: _Optional[int] = ..., model: _Optional[str] = ..., metric: _Optional[_Union[Metric, str]] = ..., kind: _Optional[str] = ..., storage: _Optional[str] = ..., limits: _Optional[_Union[CollectionLimits, _Mapping]] = ...) -> None: ...

class DropCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DropCollectionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCollectionsResponse(_message.Message):
    __slots__ = ("collections",)
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedCompositeFieldContainer[Collection]
    def __init__(self, collections: _Optional[_Iterable[_Union[Collection, _Mapping]]] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class UpsertRequest(_message.Message):
    __slots__ = ("collection", "ids", "vectors", "encoded", "pixels", "payloads", "model_digest", "request_id", "if_sequence")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IF_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    vectors: _tensor_pb2.Tensor
    encoded: _tensor_pb2.EncodedImages
    pixels: _tensor_pb2.Tensor
    payloads: _containers.RepeatedScalarFieldContainer[bytes]
    model_digest: str
    request_id: str
    if_sequence: int
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., vectors: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., encoded: _Optional[_Union[_tensor_pb2.EncodedImages, _Mapping]] = ..., pixels: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., payloads: _Optional[_Iterable[bytes]] = ..., model_digest: _Optional[str] = ..., request_id: _Optional[str] = ..., if_sequence: _Optional[int] = ...) -> None: ...

class UpsertResponse(_message.Message):
    __slots__ = ("sequence", "model_digest", "request_id", "status")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    model_digest: str
    request_id: str
    status: _status_pb2.Status
    def __init__(self, sequence: _Optional[int] = ..., model_digest: _Optional[str] = ..., request_id: _Optional[str] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("collection", "ids", "filter")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    filter: str
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., filter: _Optional[str] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("deleted", "sequence")
    DELETED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    deleted: int
    sequence: int
    def __init__(self, deleted: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("collection", "ids", "with_vectors")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    WITH_VECTORS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    with_vectors: bool
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., with_vectors: _Optional[bool] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("found", "id", "vector", "payload", "sequence")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    found: bool
    id: str
    vector: _tensor_pb2.Tensor
    payload: bytes
    sequence: int
    def __init__(self, found: _Optional[bool] = ..., id: _Optional[str] = ..., vector: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., payload: _Optional[bytes] = ..., sequence: _Optional[int] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[Record]
    def __init__(self, records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ...) -> None: ...

class ScrollRequest(_message.Message):
    __slots__ = ("collection", "after", "limit", "filter", "with_payload", "with_vectors")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    WITH_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    WITH_VECTORS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    after: int
    limit: int
    filter: str
    with_payload: bool
    with_vectors: bool
    def __init__(self, collection: _Optional[str] = ..., after: _Optional[int] = ..., limit: _Optional[int] = ..., filter: _Optional[str] = ..., with_payload: _Optional[bool] = ..., with_vectors: _Optional[bool] = ...) -> None: ...

class ScrollResponse(_message.Message):
    __slots__ = ("records", "next_after", "sequence")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[Record]
    next_after: int
    sequence: int
    def __init__(self, records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ..., next_after: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class SampleRequest(_message.Message):
    __slots__ = ("collection", "count", "seed", "filter", "with_payload", "with_vectors")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    WITH_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    WITH_VECTORS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    count: int
    seed: int
    filter: str
    with_payload: bool
    with_vectors: bool
    def __init__(self, collection: _Optional[str] = ..., count: _Optional[int] = ..., seed: _Optional[int] = ..., filter: _Optional[str] = ..., with_payload: _Optional[bool] = ..., with_vectors: _Optional[bool] = ...) -> None: ...

class SampleResponse(_message.Message):
    __slots__ = ("records", "sequence")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[Record]
    sequence: int
    def __init__(self, records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ..., sequence: _Optional[int] = ...) -> None: ...

class SearchParams(_message.Message):
    __slots__ = ("exact", "recall_target", "nprobe", "ef")
    EXACT_FIELD_NUMBER: _ClassVar[int]
    RECALL_TARGET_FIELD_NUMBER: _ClassVar[int]
    NPROBE_FIELD_NUMBER: _ClassVar[int]
    EF_FIELD_NUMBER: _ClassVar[int]
    exact: bool
    recall_target: float
    nprobe: int
    ef: int
    def __init__(self, exact: _Optional[bool] = ..., recall_target: _Optional[float] = ..., nprobe: _Optional[int] = ..., ef: _Optional[int] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("collection", "vectors", "encoded", "pixels", "k", "filter", "params", "with_payload", "with_vectors", "model_digest", "request_id", "offset", "score_threshold", "group_by", "group_size")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    WITH_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    WITH_VECTORS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    vectors: _tensor_pb2.Tensor
    encoded: _tensor_pb2.EncodedImages
    pixels: _tensor_pb2.Tensor
    k: int
    filter: str
    params: SearchParams
    with_payload: bool
    with_vectors: bool
    model_digest: str
    request_id: str
    offset: int
    score_threshold: float
    group_by: str
    group_size: int
    def __init__(self, collection: _Optional[str] = ..., vectors: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., encoded: _Optional[_Union[_tensor_pb2.EncodedImages, _Mapping]] = ..., pixels: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., k: _Optional[int] = ..., filter: _Optional[str] = ..., params: _Optional[_Union[SearchParams, _Mapping]] = ..., with_payload: _Optional[bool] = ..., with_vectors: _Optional[bool] = ..., model_digest: _Optional[str] = ..., request_id: _Optional[str] = ..., offset: _Optional[int] = ..., score_threshold: _Optional[float] = ..., group_by: _Optional[str] = ..., group_size: _Optional[int] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("value", "hits")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    hits: int
    def __init__(self, value: _Optional[bytes] = ..., hits: _Optional[int] = ...) -> None: ...

class Hits(_message.Message):
    __slots__ = ("groups", "ids", "scores", "payloads", "vectors")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    ids: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedScalarFieldContainer[float]
    payloads: _containers.RepeatedScalarFieldContainer[bytes]
    vectors: _tensor_pb2.Tensor
    def __init__(self, groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ..., ids: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[float]] = ..., payloads: _Optional[_Iterable[bytes]] = ..., vectors: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("results", "exact", "model_digest", "request_id", "status", "sequence")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Hits]
    exact: bool
    model_digest: str
    request_id: str
    status: _status_pb2.Status
    sequence: int
    def __init__(self, results: _Optional[_Iterable[_Union[Hits, _Mapping]]] = ..., exact: _Optional[bool] = ..., model_digest: _Optional[str] = ..., request_id: _Optional[str] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., sequence: _Optional[int] = ...) -> None: ...

class RangeSearchRequest(_message.Message):
    __slots__ = ("collection", "vectors", "encoded", "pixels", "score_threshold", "limit", "filter", "params", "with_payload", "with_vectors", "model_digest")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    WITH_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    WITH_VECTORS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    collection: str
    vectors: _tensor_pb2.Tensor
    encoded: _tensor_pb2.EncodedImages
    pixels: _tensor_pb2.Tensor
    score_threshold: float
    limit: int
    filter: str
    params: SearchParams
    with_payload: bool
    with_vectors: bool
    model_digest: str
    def __init__(self, collection: _Optional[str] = ..., vectors: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., encoded: _Optional[_Union[_tensor_pb2.EncodedImages, _Mapping]] = ..., pixels: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., score_threshold: _Optional[float] = ..., limit: _Optional[int] = ..., filter: _Optional[str] = ..., params: _Optional[_Union[SearchParams, _Mapping]] = ..., with_payload: _Optional[bool] = ..., with_vectors: _Optional[bool] = ..., model_digest: _Optional[str] = ...) -> None: ...

class RangeSearchResponse(_message.Message):
    __slots__ = ("results", "cut", "exact", "model_digest", "sequence")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Hits]
    cut: _containers.RepeatedScalarFieldContainer[bool]
    exact: bool
    model_digest: str
    sequence: int
    def __init__(self, results: _Optional[_Iterable[_Union[Hits, _Mapping]]] = ..., cut: _Optional[_Iterable[bool]] = ..., exact: _Optional[bool] = ..., model_digest: _Optional[str] = ..., sequence: _Optional[int] = ...) -> None: ...

class DuplicatesRequest(_message.Message):
    __slots__ = ("collection", "score_threshold", "after", "limit", "neighbours", "filter", "params")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    score_threshold: float
    after: int
    limit: int
    neighbours: int
    filter: str
    params: SearchParams
    def __init__(self, collection: _Optional[str] = ..., score_threshold: _Optional[float] = ..., after: _Optional[int] = ..., limit: _Optional[int] = ..., neighbours: _Optional[int] = ..., filter: _Optional[str] = ..., params: _Optional[_Union[SearchParams, _Mapping]] = ...) -> None: ...

class Pair(_message.Message):
    __slots__ = ("first", "second", "score")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    first: str
    second: str
    score: float
    def __init__(self, first: _Optional[str] = ..., second: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class DuplicatesResponse(_message.Message):
    __slots__ = ("pairs", "next_after", "exact", "cut")
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    pairs: _containers.RepeatedCompositeFieldContainer[Pair]
    next_after: int
    exact: bool
    cut: bool
    def __init__(self, pairs: _Optional[_Iterable[_Union[Pair, _Mapping]]] = ..., next_after: _Optional[int] = ..., exact: _Optional[bool] = ..., cut: _Optional[bool] = ...) -> None: ...

class CompactRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CompactResponse(_message.Message):
    __slots__ = ("reclaimed_bytes",)
    RECLAIMED_BYTES_FIELD_NUMBER: _ClassVar[int]
    reclaimed_bytes: int
    def __init__(self, reclaimed_bytes: _Optional[int] = ...) -> None: ...

class VerifyRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class VerifyResponse(_message.Message):
    __slots__ = ("sequence", "vectors", "problems")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    vectors: int
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sequence: _Optional[int] = ..., vectors: _Optional[int] = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...
