"""Modules of ``shared/material``'s weights, written from MATERIAL.md; each factory takes the material's folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions; the shortcut skips every other pixel and adds zero channels ("option A")."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.added = stride, width - channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.added:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added // 2, self.added // 2))
        return torch.relu(x + y)


class _CifarResnet(nn.Module):
    """6n+2 layers in three stages of 16, 32 and 64 channels."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, blocks)
        self.layer2 = _stage(16, 32, 2, blocks)
        self.layer3 = _stage(32, 64, 2, blocks)
        self.linear = nn.Linear(64, 10)

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(pixel_values)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _stage(channels: int, width: int, stride: int, blocks: int) -> nn.Sequential:
    first = _BasicBlock(channels, width, stride)
    return nn.Sequential(first, *(_BasicBlock(width, width, 1) for _ in range(blocks - 1)))


def _cifar(path: Path, blocks: int) -> nn.Module:
    model = _CifarResnet(blocks)
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return model.eval()


def resnet20(material: Path) -> nn.Module:
    return _cifar(material / "cifar10-resnets" / "resnet20-12fca82f.th", 3)


def resnet56(material: Path) -> nn.Module:
    return _cifar(material / "cifar10-resnets" / "resnet56-4bfd9763.th", 9)


def _load(model: nn.Module, path: Path) -> nn.Module:
    from safetensors.torch import load_file

    model.load_state_dict(load_file(path))
    return model.eval()


class _Fire(nn.Module):
    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.expand1x1(x)), torch.relu(self.expand3x3(x))], 1)


class _Squeezenet(nn.Module):
    def __init__(self) -> None:
        super().__init__()

        def pool() -> nn.Module:
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 7, 2), nn.ReLU(), pool(),
            _Fire(96, 16, 64), _Fire(128, 16, 64), _Fire(128, 32, 128), pool(),
            _Fire(256, 32, 128), _Fire(256, 48, 192), _Fire(384, 48, 192), _Fire(384, 64, 256), pool(),
            _Fire(512, 64, 256),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(512, 1000, 1), nn.ReLU())

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.classifier(self.features(pixel_values)).mean((2, 3))


def squeezenet(material: Path) -> nn.Module:
    return _load(_Squeezenet(), material / "squeezenet-dc" / "squeezenet1_0_torchvision_keys.safetensors")


class _SeparableBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dw, self.dw_bn = nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.BatchNorm2d(64, eps=1e-3)
        self.pw, self.pw_bn = nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.pw_bn(self.pw(torch.relu(self.dw_bn(self.dw(x))))))


class _Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 64, (10, 4), 2), nn.BatchNorm2d(64, eps=1e-3)
        self.block1, self.block2 = _SeparableBlock(), _SeparableBlock()
        self.block3, self.block4 = _SeparableBlock(), _SeparableBlock()
        self.fc = nn.Linear(64, 12)

    def forward(self, mfcc: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(functional.pad(mfcc, (1, 1, 4, 5)))))
        x = self.block4(self.block3(self.block2(self.block1(x))))
        return self.fc(x.mean((2, 3)))


def keywords(material: Path) -> nn.Module:
    """Trained in Keras, whose batch normalization has an epsilon of 1e-3."""
    return _load(_Keywords(), material / "mlperf-tiny" / "kws_dscnn_fp32.safetensors")


class _Polyphones(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5398, 64)
        self.lstm = nn.LSTM(64, 32, batch_first=True, bidirectional=True)
        self.logit_layer = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 876))

    def forward(self, ids: Tensor) -> Tensor:
        return self.logit_layer(self.lstm(self.embedding(ids))[0])


def polyphones(material: Path) -> nn.Module:
    return _load(_Polyphones(), material / "g2pm" / "g2pm.safetensors")


def jets(material: Path) -> nn.Module:
    layers = (nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
    model = nn.Sequential(*layers, nn.Linear(32, 5))
    return _load(model, material / "hls4ml-jets" / "three_layer_state_dict.safetensors")
