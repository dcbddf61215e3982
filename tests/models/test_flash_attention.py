"""Flash attention with a stand-in for its kernel, which needs a GPU; all around the kernel is real."""

import PIL.Image
import pytest
import torch
import transformers.modeling_flash_attention_utils as flash
import transformers.modeling_utils
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.masking_utils import flash_attention_mask

from experiments.models.embedders import load_embedder
from experiments.models.tiny import twins
from experiments.training.losses import CachedMultipleNegativesRankingLoss

NAME = "flash_attention_on_the_cpu"
AttentionInterface.register(NAME, flash_attention_forward)
AttentionMaskInterface.register(NAME, flash_attention_mask)
TEXTS = ["sales", "energy by region and quarter in the north of the company", "x", "rising costs"]
PAGES = [PIL.Image.new("RGB", (100, 160), color) for color in ("red", "blue", "tan")]  # of one length: none is padded


def attend(q, k, v, causal, scale):
    """Attention of one sequence, (length, heads, dim)."""
    q, k, v = (each.transpose(0, 1)[None] for each in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=True)
    return out[0].transpose(0, 1)


def flash_attn(q, k, v, **options):
    return torch.stack([attend(*each, **options) for each in zip(q, k, v, strict=True)])


def flash_attn_varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, **options):
    ends = cu_seqlens_q.tolist()
    texts = [slice(*each) for each in zip(ends[:-1], ends[1:], strict=True)]
    return torch.cat([attend(q[text], k[text], v[text], **options) for text in texts])


def options_of(is_causal, softmax_scale, **rest):
    return {"causal": is_causal, "scale": softmax_scale}


def kernel(*arguments, **options):
    """What transformers finds of the package: kernels, without those for padded rows, and how they are called."""
    return (flash_attn, flash_attn_varlen, None, None, None), (options_of, options_of)


def loss_of(model):
    """The loss of a batch whose texts stand in two mini-batches, and its gradients."""
    model.zero_grad()
    features = [model.preprocess(TEXTS[:3]), model.preprocess(PAGES)]
    loss = CachedMultipleNegativesRankingLoss(model, mini_batch_num_tokens=60)(features, None)
    loss.backward()
    return loss.item(), torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])


@pytest.mark.parametrize("twin", [twins.qwen2vl, twins.qwen3vl_instruct])
def test_texts_without_padding_embed_and_train_as_padded_ones(twin, cache, monkeypatch):
    for module in (flash, transformers.modeling_utils):
        monkeypatch.setattr(module, "lazy_import_flash_attention", kernel)
    model = load_embedder(twin(cache_dir=str(cache)), attn_implementation="sdpa", pooling="lasttoken").eval()
    padded, (loss, gradients) = model.encode(TEXTS, convert_to_tensor=True), loss_of(model)
    model[0].model.set_attn_implementation(NAME)
    model[0].unpad_inputs = None  # finds out anew whether texts are padded
    assert "attention_mask" not in model.preprocess(TEXTS)  # one row of all texts, by their lengths
    torch.testing.assert_close(model.encode(TEXTS, convert_to_tensor=True), padded, rtol=0, atol=1e-5)
    flat_loss, flat_gradients = loss_of(model)
    assert flat_loss == pytest.approx(loss, abs=1e-4)
    torch.testing.assert_close(flat_gradients, gradients, rtol=0, atol=1e-3 * float(gradients.abs().max()))
