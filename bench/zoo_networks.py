"""The networks of the zoo: small configurations of torchvision, timm and transformers, and a few of its own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from load_torchvision import load_torchvision
from torch import nn
from zoo_modules import (
    TOKENS,
    VOCABULARY,
    Autoencoder,
    Detector,
    DiffusionUNet,
    Encoder,
    Generator,
    Tagger,
    TextConvolutions,
)

ROWS = 2


load_torchvision()

import timm  # noqa: E402
import transformers  # noqa: E402
from timm import models as tm  # noqa: E402
from torchvision import models as tv  # noqa: E402


def images(size: int, name: str = "x") -> dict[str, torch.Tensor]:
    return {name: torch.randn(ROWS, 3, size, size)}


def tokens(name: str = "input_ids", length: int = TOKENS) -> dict[str, torch.Tensor]:
    return {name: torch.randint(3, VOCABULARY, (ROWS, length))}


def text() -> dict[str, torch.Tensor]:
    """Tokens with a mask that hides the end of the last text."""
    mask = torch.ones(ROWS, TOKENS, dtype=torch.int64)
    mask[-1, -3:] = 0
    return tokens() | {"attention_mask": mask}


@dataclass
class Network:
    make: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, torch.Tensor]]  # by the names of forward's parameters
    opsets: dict[str, tuple[int, ...]] = field(
        default_factory=dict
    )  # by exporter; else by its place in the list


def transformer(
    model: str, config: type, inputs: Callable[[], dict[str, torch.Tensor]] = text, **sizes: Any
) -> Network:
    """A small model of transformers, that gives no caches."""

    def make() -> nn.Module:
        options: dict[str, Any] = {
            "vocab_size": VOCABULARY,
            "use_cache": False,
            "pad_token_id": 0,
        }
        options |= {"bos_token_id": 1, "eos_token_id": 2} | sizes
        return getattr(transformers, model)(config(**options))

    return Network(make, inputs)


def _encoder_sizes(layers: int = 2) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }


def _gpt2_sizes(layers: int = 2) -> dict[str, Any]:
    return {"n_embd": 32, "n_layer": layers, "n_head": 4, "n_positions": 64}


def _llama_sizes(layers: int = 2) -> dict[str, Any]:
    return _encoder_sizes(layers) | {"num_key_value_heads": 2}


def _vit(layers: int = 2) -> nn.Module:
    return tv.VisionTransformer(32, 8, layers, 4, 32, 64, num_classes=10)


def _efficientnet() -> nn.Module:
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    blocks = [
        MBConvConfig(1, 3, 1, 16, 8, 1),
        MBConvConfig(6, 3, 2, 8, 16, 2),
        MBConvConfig(6, 5, 2, 16, 24, 2),
    ]
    return EfficientNet(blocks, dropout=0.2, num_classes=10)


def _mobilenet_v3() -> nn.Module:
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    blocks = [
        InvertedResidualConfig(8, 3, 8, 8, True, "RE", 2, 1, 1),
        InvertedResidualConfig(8, 3, 24, 16, False, "RE", 2, 1, 1),
        InvertedResidualConfig(16, 5, 48, 16, True, "HS", 1, 1, 1),
        InvertedResidualConfig(16, 5, 48, 24, True, "HS", 2, 1, 1),
    ]
    return MobileNetV3(blocks, 64, num_classes=10)


def _regnet() -> nn.Module:
    from torchvision.models.regnet import BlockParams, RegNet

    return RegNet(
        BlockParams.from_init_params(
            depth=6, w_0=16, w_a=8.0, w_m=2.0, group_width=8, se_ratio=0.25
        ),
        num_classes=10,
    )


def _convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt(
        [CNBlockConfig(16, 32, 2), CNBlockConfig(32, 48, 2), CNBlockConfig(48, None, 2)],
        num_classes=10,
    )


def _vgg() -> nn.Module:
    features = tv.vgg.make_layers([16, 16, "M", 32, 32, "M"], batch_norm=True)
    model = tv.VGG(features, num_classes=10, init_weights=False)
    model.classifier = nn.Sequential(
        nn.Linear(32 * 49, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, 10)
    )
    return model


def _resnet(block: type, layers: list[int], **options: Any) -> nn.Module:
    return tv.ResNet(block, layers, num_classes=10, **options)


def _detr() -> nn.Module:
    backbone = transformers.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32],
        depths=[1, 1],
        layer_type="basic",
        out_features=["stage2"],
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False, backbone_config=backbone, backbone=None, use_pretrained_backbone=False, d_model=32,
        encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=7, num_labels=5,
    )  # fmt: skip
    return transformers.DetrForObjectDetection(config)


def _clip() -> nn.Module:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    text_config = sizes | {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 32,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    vision_config = sizes | {"image_size": 32, "patch_size": 8}
    config = transformers.CLIPConfig(
        text_config=text_config,
        vision_config=vision_config,
        projection_dim=24,
    )
    return transformers.CLIPModel(config)


def _siglip() -> nn.Module:
    return transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
        )
    )


def _segformer() -> nn.Module:
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[4, 2], hidden_sizes=[16, 32], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=32, num_labels=5,
    )  # fmt: skip
    return transformers.SegformerForSemanticSegmentation(config)


def _t5_inputs() -> dict[str, torch.Tensor]:
    return text() | tokens("decoder_input_ids", 7)


def _whisper() -> nn.Module:
    config = transformers.WhisperConfig(
        vocab_size=VOCABULARY, num_mel_bins=8, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=20, max_target_positions=16,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, use_cache=False,
    )  # fmt: skip
    return transformers.WhisperForConditionalGeneration(config)


def _wav2vec2() -> nn.Module:
    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, conv_dim=(16, 16), conv_stride=(5, 2),
        conv_kernel=(10, 3), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, vocab_size=VOCABULARY,
        num_feat_extract_layers=2,
    )  # fmt: skip
    return transformers.Wav2Vec2ForCTC(config)


_BART = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "max_position_embeddings": 64, "decoder_start_token_id": 1, "forced_eos_token_id": None,
}  # fmt: skip

NETWORKS: dict[str, Network] = {
    # torchvision
    "resnet50": Network(tv.resnet50, partial(images, 224), {"dynamo": (18,), "legacy": (17,)}),
    "resnet-basic": Network(
        lambda: _resnet(tv.resnet.BasicBlock, [2, 2, 1, 1]),
        partial(images, 64),
        {"dynamo": (18, 21), "legacy": (11, 17)},
    ),
    "resnext": Network(
        lambda: _resnet(tv.resnet.Bottleneck, [1, 2, 1, 1], groups=4, width_per_group=4),
        partial(images, 64),
    ),
    "mobilenet-v2": Network(
        lambda: tv.MobileNetV2(num_classes=10, width_mult=0.25),
        partial(images, 64),
        {"dynamo": (18,), "legacy": (11, 17)},
    ),
    "mobilenet-v3": Network(
        _mobilenet_v3, partial(images, 64), {"dynamo": (18,), "legacy": (13, 14)}
    ),
    "efficientnet": Network(_efficientnet, partial(images, 64)),
    "densenet": Network(lambda: tv.DenseNet(8, (2, 3, 2), 16, num_classes=10), partial(images, 64)),
    "regnet": Network(_regnet, partial(images, 64)),
    "convnext": Network(_convnext, partial(images, 64)),
    "vgg": Network(_vgg, partial(images, 28), {"dynamo": (18,), "legacy": (9, 17)}),
    "squeezenet": Network(
        lambda: tv.SqueezeNet("1_1", num_classes=10),
        partial(images, 64),
        {"dynamo": (20,), "legacy": (12,)},
    ),
    "shufflenet": Network(
        lambda: tv.ShuffleNetV2([1, 2, 1], [8, 16, 24, 32, 64], num_classes=10), partial(images, 64)
    ),
    "googlenet": Network(
        lambda: tv.GoogLeNet(num_classes=10, aux_logits=False, init_weights=False),
        partial(images, 64),
    ),
    "mnasnet": Network(lambda: tv.MNASNet(0.35, num_classes=10), partial(images, 64)),
    "vit-tv": Network(_vit, partial(images, 32)),
    "vit-tv-24": Network(lambda: _vit(24), partial(images, 32)),
    "swin-tv": Network(
        lambda: tv.SwinTransformer([2, 2], 16, [2, 2], [2, 4], [4, 4], num_classes=10),
        partial(images, 32),
    ),
    "lraspp": Network(
        lambda: tv.segmentation.lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=5
        ),
        partial(images, 64, "input"),
    ),
    "deeplab": Network(
        lambda: tv.segmentation.deeplabv3_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=5
        ),
        partial(images, 64, "input"),
    ),
    "retinanet-heads": Network(lambda: Detector("retinanet"), partial(images, 64)),
    "fcos-heads": Network(lambda: Detector("fcos"), partial(images, 64)),
    "video-resnet": Network(
        lambda: tv.video.resnet.VideoResNet(
            tv.video.resnet.BasicBlock,
            [tv.video.resnet.Conv3DSimple] * 4,
            [1, 1, 1, 1],
            tv.video.resnet.BasicStem,
            num_classes=5,
        ),
        lambda: {"x": torch.randn(ROWS, 3, 8, 32, 32)},
    ),
    # timm
    "vit-timm": Network(
        lambda: tm.VisionTransformer(32, 8, embed_dim=32, depth=2, num_heads=4, num_classes=10),
        partial(images, 32),
    ),
    "deit": Network(
        lambda: tm.deit.VisionTransformerDistilled(
            img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=10
        ),
        partial(images, 32),
    ),
    "beit": Network(
        lambda: tm.Beit(
            32,
            8,
            embed_dim=32,
            depth=2,
            num_heads=4,
            num_classes=10,
            use_rel_pos_bias=True,
            init_values=0.1,
        ),
        partial(images, 32),
    ),
    "eva": Network(
        lambda: tm.eva.Eva(
            32,
            8,
            embed_dim=32,
            depth=2,
            num_heads=4,
            num_classes=10,
            use_rot_pos_emb=True,
            ref_feat_shape=(4, 4),
            swiglu_mlp=True,
            scale_mlp=True,
        ),
        partial(images, 32),
    ),
    "swin-timm": Network(
        lambda: tm.SwinTransformer(
            32, 2, num_classes=10, embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=4
        ),
        partial(images, 32),
    ),
    "mixer": Network(
        lambda: tm.MlpMixer(num_classes=10, img_size=32, patch_size=8, num_blocks=2, embed_dim=32),
        partial(images, 32),
    ),
    "convmixer": Network(
        lambda: tm.ConvMixer(32, 3, kernel_size=5, patch_size=4, num_classes=10),
        partial(images, 32),
    ),
    "convnextv2": Network(
        lambda: tm.ConvNeXt(
            num_classes=10,
            depths=(1, 1, 2, 1),
            dims=(8, 16, 24, 32),
            use_grn=True,
            ls_init_value=None,
        ),
        partial(images, 64),
    ),
    "poolformer": Network(
        lambda: tm.metaformer.MetaFormer(
            num_classes=10,
            depths=(1, 1, 1, 1),
            dims=(8, 16, 24, 32),
            token_mixers=tm.metaformer.Pooling,
        ),
        partial(images, 64),
    ),
    "cait": Network(
        lambda: tm.Cait(32, 8, num_classes=10, embed_dim=32, depth=2, num_heads=4),
        partial(images, 32),
    ),
    "xcit": Network(
        lambda: tm.Xcit(32, 8, num_classes=10, embed_dim=32, depth=2, num_heads=4, eta=1.0),
        partial(images, 32),
    ),
    "levit": Network(
        lambda: tm.levit.Levit(
            img_size=64,
            num_classes=10,
            embed_dim=(16, 32),
            key_dim=8,
            depth=(1, 1),
            num_heads=(2, 2),
            attn_ratio=2,
            mlp_ratio=2,
        ),
        partial(images, 64),
    ),
    "mobilevit": Network(
        lambda: timm.create_model("mobilevit_xxs", num_classes=10), partial(images, 64)
    ),
    "efficientformer": Network(
        lambda: timm.create_model("efficientformerv2_s0", num_classes=10), partial(images, 224)
    ),
    "ghostnet": Network(
        lambda: timm.create_model("ghostnet_050", num_classes=10), partial(images, 64)
    ),
    "hrnet": Network(
        lambda: timm.create_model("hrnet_w18_small", num_classes=10), partial(images, 64)
    ),
    "repvgg": Network(
        lambda: timm.create_model("repghostnet_050", num_classes=10), partial(images, 64)
    ),
    "resnest": Network(
        lambda: timm.create_model("resnest14d", num_classes=10), partial(images, 64)
    ),
    "res2net": Network(
        lambda: timm.models.ResNet(
            timm.models.res2net.Bottle2neck,
            (1, 1, 1, 1),
            num_classes=10,
            base_width=8,
            block_args={"scale": 4},
        ),
        partial(images, 64),
    ),
    "nfnet": Network(lambda: timm.create_model("nf_resnet26", num_classes=10), partial(images, 64)),
    "sequencer": Network(
        lambda: tm.sequencer.Sequencer2d(
            num_classes=10,
            img_size=32,
            layers=(1, 1),
            patch_sizes=(4, 2),
            embed_dims=(16, 16),
            hidden_sizes=(8, 8),
            mlp_ratios=(2.0, 2.0),
        ),
        partial(images, 32),
    ),
    "mambaout": Network(
        lambda: timm.create_model("mambaout_femto", num_classes=10), partial(images, 64)
    ),
    "pvt": Network(lambda: timm.create_model("pvt_v2_b0", num_classes=10), partial(images, 64)),
    "lcnet": Network(lambda: timm.create_model("lcnet_050", num_classes=10), partial(images, 64)),
    # transformers
    "bert": transformer(
        "BertForSequenceClassification", transformers.BertConfig, **_encoder_sizes()
    ),
    "bert-24": transformer(
        "BertForSequenceClassification", transformers.BertConfig, **_encoder_sizes(24)
    ),
    "roberta": transformer(
        "RobertaForTokenClassification", transformers.RobertaConfig, **_encoder_sizes()
    ),
    "distilbert": transformer(
        "DistilBertForMaskedLM",
        transformers.DistilBertConfig,
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=64,
        max_position_embeddings=64,
    ),
    "albert": transformer(
        "AlbertModel", transformers.AlbertConfig, embedding_size=16, **_encoder_sizes()
    ),
    "deberta": transformer(
        "DebertaV2Model",
        transformers.DebertaV2Config,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        **_encoder_sizes(),
    ),
    "gpt2": transformer("GPT2LMHeadModel", transformers.GPT2Config, **_gpt2_sizes()),
    "gpt2-24": transformer("GPT2LMHeadModel", transformers.GPT2Config, **_gpt2_sizes(24)),
    "gpt-neox": transformer("GPTNeoXForCausalLM", transformers.GPTNeoXConfig, **_encoder_sizes()),
    "opt": transformer(
        "OPTForCausalLM",
        transformers.OPTConfig,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=64,
        word_embed_proj_dim=32,
        max_position_embeddings=64,
    ),
    "bloom": transformer(
        "BloomForCausalLM", transformers.BloomConfig, hidden_size=32, n_layer=2, n_head=4
    ),
    "llama": transformer("LlamaForCausalLM", transformers.LlamaConfig, **_llama_sizes()),
    "llama-24": transformer("LlamaForCausalLM", transformers.LlamaConfig, **_llama_sizes(24)),
    "qwen2": transformer(
        "Qwen2ForCausalLM", transformers.Qwen2Config, tie_word_embeddings=True, **_llama_sizes()
    ),
    "gemma": transformer(
        "GemmaForCausalLM", transformers.GemmaConfig, head_dim=8, **_llama_sizes()
    ),
    "phi": transformer("PhiForCausalLM", transformers.PhiConfig, **_encoder_sizes()),
    "t5": transformer(
        "T5ForConditionalGeneration",
        transformers.T5Config,
        _t5_inputs,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
    ),
    "bart": transformer(
        "BartForConditionalGeneration", transformers.BartConfig, _t5_inputs, **_BART
    ),
    "mamba": transformer(
        "MambaForCausalLM",
        transformers.MambaConfig,
        tokens,
        hidden_size=16,
        state_size=4,
        num_hidden_layers=2,
    ),
    "whisper": Network(
        _whisper,
        lambda: {"input_features": torch.randn(ROWS, 8, 40)} | tokens("decoder_input_ids", 6),
    ),
    "wav2vec2": Network(_wav2vec2, lambda: {"input_values": torch.randn(ROWS, 600)}),
    "clip": Network(
        _clip, lambda: {"input_ids": tokens()["input_ids"], "pixel_values": images(32)["x"]}
    ),
    "siglip": Network(_siglip, lambda: {"pixel_values": images(32)["x"]}),
    "segformer": Network(_segformer, lambda: {"pixel_values": images(64)["x"]}),
    "detr": Network(
        _detr,
        lambda: {
            "pixel_values": images(64)["x"],
            "pixel_mask": torch.ones(ROWS, 64, 64, dtype=torch.int64),
        },
    ),
    # written here
    "lstm-tagger": Network(lambda: Tagger(nn.LSTM), partial(tokens, "tokens")),
    "gru-tagger": Network(lambda: Tagger(nn.GRU), partial(tokens, "tokens")),
    "lstm-forward": Network(lambda: Tagger(nn.LSTM, 1, False), partial(tokens, "tokens")),
    "diffusion-unet": Network(
        DiffusionUNet, lambda: images(16) | {"step": torch.randint(1, 900, (ROWS,))}
    ),
    "generator": Network(Generator, lambda: {"z": torch.randn(ROWS, 16, 1, 1)}),
    "text-convolutions": Network(TextConvolutions, partial(tokens, "tokens")),
    "encoder-post": Network(lambda: Encoder(False), partial(tokens, "tokens")),
    "encoder-pre": Network(lambda: Encoder(True), partial(tokens, "tokens")),
    "autoencoder": Network(Autoencoder, lambda: {"x": torch.randn(ROWS, 1, 8, 8)}),
}

ROTATION = {
    "dynamo": (18, 20, 18, 21),
    "legacy": (17, 14, 18, 16),
}  # opsets, by a network's place in the list
