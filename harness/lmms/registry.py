"""The models that lmms-eval finds through the entry point group `lmms_eval.models`."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest

MANIFESTS = [
    ModelManifest("adaretake_qwen2_5_vl", simple_class_path="harness.lmms.model.Qwen25VL"),
    ModelManifest("adaretake_qwen2_vl", simple_class_path="harness.lmms.model.Qwen2VL"),
    ModelManifest("adaretake_llava_onevision", simple_class_path="harness.lmms.model.LlavaOneVision"),
]
