"""Flash attention with a stand-in for its kernel, which needs a GPU; all around the kernel is real."""

import PIL.Image
import pytest
import torch
import transformers.modeling_flash_attention_utils as flash

from experiments.models.embedders import load_embedder
from experiments.models.tiny import twins
from experiments.training.losses import CachedMultipleNegativesRankingLoss

TEXTS = ["sales", "energy by region and quarter in the north of the company", "x", "rising costs"]
PAGES = [PIL.Image.new("RGB", (100, 160 - 20 * number), color) for number, color in enumerate(("red", "blue", "tan"))]


def attend(q, k, v, causal, scale):
    """Attention of one sequence, (length, heads, dim)."""
    q, k, v = (each.transpose(0, 1)[None] for each in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=True)
    return out[0].transpose(0, 1)


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False):
    return torch.stack([attend(*each, causal, softmax_scale) for each in zip(q, k, v, strict=True)])


def flash_attn_varlen_func(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False
):
    ends = cu_seqlens_q.tolist()
    slices = [slice(*each) for each in zip(ends[:-1], ends[1:], strict=True)]
    return torch.cat([attend(q[each], k[each], v[each], causal, softmax_scale) for each in slices])


def attend_by(transformer, implementation):
    config = transformer.config
    for each in (config, config.text_config, config.vision_config):
        each._attn_implementation = implementation
    transformer.unpad_inputs = None  # finds out anew whether texts are padded


def loss_of(model):
    """The loss of a batch whose texts stand in two mini-batches, and its gradients."""
    model.zero_grad()
    features = [model.preprocess(TEXTS[:3]), model.preprocess(PAGES)]
    loss = CachedMultipleNegativesRankingLoss(model, mini_batch_num_tokens=60)(features, None)
    loss.backward()
    return loss.item(), torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])


@pytest.mark.parametrize("twin", [twins.qwen2vl, twins.qwen3vl_instruct])
def test_texts_without_padding_embed_and_train_as_padded_ones(twin, cache, monkeypatch):
    functions = (flash_attn_func, flash_attn_varlen_func, None, flash._pad_input, flash._unpad_input)
    monkeypatch.setattr(flash, "_lazy_imports", lambda *arguments, **options: functions)
    model = load_embedder(twin(cache_dir=str(cache)), attn_implementation="sdpa", pooling="lasttoken").eval()
    padded, (loss, gradients) = model.encode(TEXTS, convert_to_tensor=True), loss_of(model)
    attend_by(model[0], "flash_attention_2")
    assert "attention_mask" not in model.preprocess(TEXTS)  # one row of all texts, by their lengths
    torch.testing.assert_close(model.encode(TEXTS, convert_to_tensor=True), padded, rtol=0, atol=1e-5)
    flat_loss, flat_gradients = loss_of(model)
    assert flat_loss == pytest.approx(loss, abs=1e-4)
    torch.testing.assert_close(flat_gradients, gradients, rtol=0, atol=1e-3 * float(gradients.abs().max()))
