"""The models of the zoo that are classes of transformers, from tiny random configurations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.parts.specimen import CLASSES, Inputs, Specimen, images


class LastLogits(nn.Module):
    """The scores of a model of transformers: of the last position, where there are several."""

    def __init__(self, model: nn.Module, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.model, self.settings = model, settings

    def scored(self, **inputs: Tensor) -> Tensor:
        """(N, classes)."""
        output = self.model(**inputs, **self.settings)
        scores = getattr(output, "logits", None)
        scores = output[0] if scores is None else scores
        return scores[:, -1] if scores.dim() == 3 else scores.flatten(2).mean(2) if scores.dim() == 4 else scores


class OfTokens(LastLogits):
    """A model of token ids."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.scored(input_ids=input_ids)


class OfTwoTexts(LastLogits):
    """An encoder and a decoder."""

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor:
        return self.scored(input_ids=input_ids, decoder_input_ids=decoder_input_ids)


class OfImages(LastLogits):
    """A model of images."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.scored(pixel_values=pixel_values)


class OfSpectra(LastLogits):
    """A model of spectra of sound that answers with text."""

    def forward(self, input_features: Tensor, decoder_input_ids: Tensor) -> Tensor:
        return self.scored(input_features=input_features, decoder_input_ids=decoder_input_ids)


class OfSound(LastLogits):
    """A model of samples of sound."""

    def forward(self, input_values: Tensor) -> Tensor:
        return self.scored(input_values=input_values)


_TEXT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 50,
    "max_position_embeddings": 32, "num_labels": CLASSES, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_DECODER = {**_TEXT, "num_key_value_heads": 1, "use_cache": False}
_SEEN = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 32,
    "patch_size": 16, "num_labels": CLASSES,
}  # fmt: skip
_SEQ2SEQ = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "vocab_size": 50, "max_position_embeddings": 32, "use_cache": False,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "forced_eos_token_id": 2,
}  # fmt: skip
# Class of the model -> what wraps it, and its configuration.
_TRANSFORMERS: dict[str, tuple[type[LastLogits], dict[str, Any]]] = {
    "BertForSequenceClassification": (OfTokens, _TEXT),
    "RobertaForSequenceClassification": (OfTokens, {**_TEXT, "max_position_embeddings": 40}),
    "DistilBertForSequenceClassification": (
        OfTokens,
        {**_TEXT, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    ),
    "DebertaV2ForSequenceClassification": (
        OfTokens,
        {**_TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    ),
    "ElectraForSequenceClassification": (OfTokens, {**_TEXT, "embedding_size": 16}),
    "AlbertForSequenceClassification": (OfTokens, {**_TEXT, "embedding_size": 16}),
    "MPNetForSequenceClassification": (OfTokens, {**_TEXT, "max_position_embeddings": 40}),
    "ModernBertForSequenceClassification": (OfTokens, {**_TEXT, "cls_token_id": 1, "sep_token_id": 2}),
    "FNetForSequenceClassification": (OfTokens, _TEXT),
    "GPT2LMHeadModel": (OfTokens, {**_DECODER, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}),
    "GPTNeoXForCausalLM": (OfTokens, _DECODER),
    "LlamaForCausalLM": (OfTokens, _DECODER),
    "MistralForCausalLM": (OfTokens, _DECODER),
    "Qwen2ForCausalLM": (OfTokens, _DECODER),
    "Qwen3ForCausalLM": (OfTokens, {**_DECODER, "head_dim": 8}),
    "Gemma2ForCausalLM": (OfTokens, {**_DECODER, "head_dim": 8}),
    "Gemma3ForCausalLM": (OfTokens, {**_DECODER, "head_dim": 8}),
    "Phi3ForCausalLM": (OfTokens, _DECODER),
    "MambaForCausalLM": (OfTokens, {**_TEXT, "state_size": 4, "use_cache": False}),
    "T5ForConditionalGeneration": (
        OfTwoTexts,
        {**_SEQ2SEQ, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
    ),
    "BartForConditionalGeneration": (OfTwoTexts, _SEQ2SEQ),
    "ViTForImageClassification": (OfImages, _SEEN),
    "DeiTForImageClassification": (OfImages, _SEEN),
    "Dinov2ForImageClassification": (OfImages, _SEEN),
    "BeitForImageClassification": (OfImages, {**_SEEN, "use_relative_position_bias": True}),
    "SiglipForImageClassification": (OfImages, {"vision_config": _SEEN, "num_labels": CLASSES}),
    "CLIPForImageClassification": (OfImages, {"vision_config": _SEEN, "num_labels": CLASSES}),
    "SwinForImageClassification": (
        OfImages,
        {"image_size": 32, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4,
         "num_labels": CLASSES},
    ),
    "SegformerForSemanticSegmentation": (
        OfImages,
        {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2],
         "decoder_hidden_size": 16, "num_labels": CLASSES},
    ),
    "DetrForObjectDetection": (
        OfImages,
        {**_SEQ2SEQ, "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "num_queries": 4,
         "num_labels": CLASSES - 1,
         "backbone_config": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 8],
                             "depths": [1, 1, 1, 1], "out_features": ["stage4"]}},
    ),
    "WhisperForConditionalGeneration": (
        OfSpectra,
        {**_SEQ2SEQ, "num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 16,
         "suppress_tokens": None, "begin_suppress_tokens": None},
    ),
    "Wav2Vec2ForSequenceClassification": (
        OfSound,
        {**_TEXT, "conv_dim": [8, 8], "conv_stride": [4, 4], "conv_kernel": [8, 8], "num_feat_extract_layers": 2,
         "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8,
         "use_weighted_layer_sum": False},
    ),
}  # fmt: skip


def transformers_models() -> Iterator[Specimen]:
    """Classes of transformers, from tiny random configurations."""
    for name, (wrapper, _) in _TRANSFORMERS.items():
        embeds = issubclass(wrapper, OfTokens | OfTwoTexts)
        embedding = _first_embedding if embeds else None
        yield Specimen("transformers", name.split("For")[0], name, lambda name=name: _transformer(name), embedding)


def _first_embedding(model: nn.Module) -> nn.Module:
    """Where the encoder's tokens go, or those of the only stack."""
    inner: Any = model.get_submodule("model")
    encoder = inner.get_encoder() if getattr(inner.config, "is_encoder_decoder", False) else inner
    return encoder.get_input_embeddings()


def _transformer(name: str) -> tuple[nn.Module, Inputs]:
    import transformers

    wrapper, settings = _TRANSFORMERS[name]
    kind: Any = getattr(transformers, name)
    model = kind(kind.config_class(**settings))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    tokens = torch.randint(3, 50, (2, 7))
    inputs: dict[type[LastLogits], Inputs] = {
        OfTokens: {"input_ids": tokens},
        OfTwoTexts: {"input_ids": tokens, "decoder_input_ids": tokens[:, :3]},
        OfImages: images(32, "pixel_values"),
        OfSpectra: {"input_features": torch.randn(2, 8, 20), "decoder_input_ids": tokens[:, :3]},
        OfSound: {"input_values": torch.randn(2, 400)},
    }
    return wrapper(model, {}), inputs[wrapper]
