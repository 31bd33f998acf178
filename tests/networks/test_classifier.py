"""Classification heads and networks: values by hand, freezing, export."""

import pytest
import torch

from cxw_monai.networks import ClassProbabilities, RadiographClassifier
from cxw_monai.networks.heads import AttentiveHead, LinearHead, make_head
from tests.helpers.small_networks import encoder, images

CLASSES = ("effusion", "edema", "no_finding")


def classifier(**settings):
    torch.manual_seed(0)
    return RadiographClassifier(encoder(), CLASSES, **settings).eval()


def test_the_linear_head_is_a_map_of_the_mean_token():
    network, image = classifier(), images(2, 1, 32, 32)
    mean = network.encoder(image).mean(dim=1)  # [B, D]
    torch.testing.assert_close(network(image), mean @ network.head.fc.weight.T + network.head.fc.bias)


def test_a_head_reads_the_last_blocks_after_the_final_norm():
    network, image = classifier(head_layers=2), images(2, 1, 32, 32)
    tokens = network.tokens(image)
    assert tokens.shape == (2, 2, 16, 24)  # [B, K, N, D]
    torch.testing.assert_close(tokens[:, 1], network.encoder(image))
    torch.testing.assert_close(network(image), network(tokens, encoded=True))


def test_attention_by_hand():
    """One head of 2 channels, two classes that look at token 0 and 1; keys and values are the tokens themselves."""
    head = AttentiveHead(2, 2, heads=1)
    with torch.no_grad():
        head.queries.copy_(torch.tensor([[[200.0, 0.0], [0.0, 200.0]]]))
        head.key_value.weight.copy_(torch.cat([torch.eye(2), torch.eye(2)]))
        head.key_value.bias.zero_()
        head.weight.copy_(torch.tensor([[1.0, 10.0], [100.0, 1000.0]]))
        head.bias.copy_(torch.tensor([0.5, 0.0]))
    tokens = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])  # [B, K, N, D]
    torch.testing.assert_close(head(tokens), torch.tensor([[1.5, 1000.0]]))
    torch.testing.assert_close(head.attention(tokens), torch.eye(2)[None])


def test_attention_of_several_layers_adds_up():
    network = classifier(head="attentive", head_layers=2)
    maps = network.attention(images(2, 1, 32, 48))
    assert maps.shape == (2, 3, 4, 6)
    torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(2, 3))
    with pytest.raises(ValueError, match="only an attentive head"):
        classifier().attention(images(1, 1, 32, 32))


@pytest.mark.parametrize("head", [LinearHead(24, 3, norm=True), AttentiveHead(24, 3, norm=True)])
def test_normalisation_takes_the_scale_away(head):
    tokens = torch.randn(2, 1, 5, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head(tokens * 100), head(tokens), atol=1e-4, rtol=1e-4)
    plain = make_head("linear" if isinstance(head, LinearHead) else "attentive", 24, 3)
    assert not torch.allclose(plain(tokens * 100), plain(tokens), atol=1e-2)


def test_a_frozen_encoder_keeps_its_weights_and_has_no_gradient():
    network = classifier(frozen_blocks=-1, head="attentive").train()
    assert not network.encoder.training and network.head.training
    network(images(2, 1, 32, 32)).sum().backward()
    assert all(parameter.grad is None for parameter in network.encoder.parameters())
    assert all(parameter.grad is not None for parameter in network.head.parameters())


@pytest.mark.parametrize("head", ["linear", "attentive"])
@pytest.mark.parametrize("multi_class", [True, False])
def test_torchscript_gives_the_same_probabilities(head, multi_class):
    model = ClassProbabilities(classifier(head=head, head_layers=2, head_norm=True), multi_class, [2.0]).eval()
    image = images(3, 1, 32, 40)
    found = torch.jit.script(model)(image)
    torch.testing.assert_close(found, model(image))
    logits = model.network(image) / 2
    torch.testing.assert_close(found, logits.softmax(dim=1) if multi_class else logits.sigmoid())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"head": "mlp"}, "head must be one of linear, attentive"),
        ({"head_layers": 3}, "head_layers must lie in 1..2"),
        ({"frozen_blocks": 3}, "frozen_blocks must lie in"),
    ],
)
def test_wrong_settings(settings, said):
    with pytest.raises(ValueError, match=said):
        classifier(**settings)
