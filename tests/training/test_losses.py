import pytest
import torch
from PIL import Image
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss as LibraryLoss
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

from experiments.config.errors import ConfigError
from experiments.training.losses import CachedMultipleNegativesRankingLoss, matryoshka, no_matryoshka


def batch(model, rows=12):
    generator = torch.Generator().manual_seed(0)
    colours = [tuple(torch.randint(0, 256, (3,), generator=generator).tolist()) for _ in range(2 * rows)]
    pages = [Image.new("RGB", (64 + 32 * (i % 3), 96), colour) for i, colour in enumerate(colours)]
    queries = ["a page " + "in colour " * (i % 4) + str(i) for i in range(rows)]
    return [model.preprocess(column) for column in (queries, pages[:rows], pages[rows:])]


def gradients(model, loss):
    model.zero_grad()
    value = loss(batch(model), None)
    value.backward()
    return value.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("setting", [{}, {"mini_batch_size": 1}, {"mini_batch_num_tokens": 60, "score_chunk_size": 5}])
def test_loss_and_gradients_equal_the_librarys(tiny_model, setting):
    dims = [96, 24]
    expected_loss, expected = gradients(
        tiny_model, MatryoshkaLoss(tiny_model, LibraryLoss(tiny_model, mini_batch_size=12), dims)
    )
    ours = CachedMultipleNegativesRankingLoss(tiny_model, **setting)
    actual_loss, actual = gradients(tiny_model, matryoshka(96, default_dims=dims).wrap(tiny_model, ours))
    assert actual_loss == pytest.approx(expected_loss, abs=1e-5)
    assert actual.keys() == expected.keys()
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        assert torch.allclose(actual[name], gradient, atol=2e-5 * float(largest), rtol=1e-3), name


def test_a_token_budget_bounds_what_the_encoder_sees_at_once(tiny_model):
    seen = []
    handle = tiny_model.register_forward_pre_hook(
        lambda module, args: seen.append(int(args[0]["attention_mask"].sum()))
    )
    gradients(tiny_model, CachedMultipleNegativesRankingLoss(tiny_model, mini_batch_num_tokens=60))
    handle.remove()
    assert max(seen) <= 60
    assert len(seen) > 6


def test_setting_the_size_clears_the_token_budget_and_both_are_refused(tiny_model):
    assert CachedMultipleNegativesRankingLoss(tiny_model).mini_batch_num_tokens == 2048
    assert CachedMultipleNegativesRankingLoss(tiny_model, mini_batch_size=4).mini_batch_num_tokens is None
    with pytest.raises(ConfigError, match="exclude each other"):
        CachedMultipleNegativesRankingLoss(tiny_model, mini_batch_size=4, mini_batch_num_tokens=64)


def test_default_dims_are_clipped_to_the_model_and_a_list_by_hand_is_not():
    article = [2048, 1536, 1024, 512, 256, 128, 64]
    assert matryoshka(2048, default_dims=article, truncate_dim=1024).dims == tuple(article)
    small = matryoshka(96, default_dims=article, truncate_dim=1024)
    assert (small.dims, small.truncate_dim) == ((96, 64), None)
    assert matryoshka(96, default_dims=article, matryoshka_dims=[32, 64]).dims == (64, 32)
    with pytest.raises(ConfigError, match="leave out 128"):
        matryoshka(96, default_dims=article, matryoshka_dims=[128, 64])
    assert no_matryoshka(96).dims is None


def test_inputs_without_token_counts_go_by_number_not_by_the_default_budget(tiny_model):
    text, page, _ = batch(tiny_model)
    clip_page = {"pixel_values": torch.zeros(12, 3, 8, 8)}
    loss = CachedMultipleNegativesRankingLoss(tiny_model)
    loss.check_token_counts([text, page])
    assert loss.mini_batch_num_tokens == 2048
    loss.check_token_counts([text, clip_page])
    assert (loss.mini_batch_num_tokens, loss.mini_batch_size) == (None, 32)
