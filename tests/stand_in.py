"""Stands in for a checkout of the published code in `test_benchmarks.py`: the functions the benchmark calls there.

The test puts this file under the name of every module of the published code. Its network computes what the published
`2SoftHebbCnnCIFAR` computes and has its state's names; what it lacks is the learning.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torchvision import datasets

# -- utils


def load_presets(name):
    return json.loads(Path("presets.json").read_text())[name]


def load_config_dataset(name, validation):
    assert not validation
    return {"name": name, "nb_epoch": 7, "batch_size": 7, "print_freq": 7, "seed": 7}


def seed_init_fn(seed):
    torch.manual_seed(seed)


# -- model


class Block(nn.Module):
    def __init__(self, operations, layer, after):
        super().__init__()
        self.operations, self.layer, self.after = nn.Sequential(*operations), layer, after

    def forward(self, x):
        return self.after(self.layer(self.operations(x)))


def triangle_and_pool(u):
    return F.avg_pool2d((u - u.mean(dim=1, keepdim=True)).relu() ** 0.7, 4, 2, 1)


class Conv(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 96, 5, padding=2, padding_mode="reflect", bias=False)


class MultiLayer(nn.Module):
    def __init__(self):
        super().__init__()
        first = Block([nn.BatchNorm2d(3, affine=False)], Conv(), triangle_and_pool)
        self.blocks = nn.Sequential(first, Block([nn.Flatten()], nn.Linear(24576, 10), nn.Identity()))

    def forward(self, x):
        return self.blocks(x)


def load_layers(blocks, name, resume, verbose):
    assert resume is None and not verbose and blocks == {"of": name}
    return MultiLayer()


# -- dataset: 50,000 and 10,000 images, which are the given ones over and over


class Repeated(torch.utils.data.Dataset):
    def __init__(self, train):
        self.found, self.count = datasets.CIFAR10("nowhere", train=train, download=True), 50_000 if train else 10_000

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        index %= len(self.found)
        return torch.from_numpy(self.found.data[index]).movedim(-1, 0) / 255, self.found.targets[index]


def make_data_loaders(config, batch_size, device):
    assert config["batch_size"] != 7, "the settings of our run reach the published code"
    sizes = {True: batch_size, False: 1000}
    return tuple(torch.utils.data.DataLoader(Repeated(train), batch_size=sizes[train]) for train in (True, False))


# -- train and engine


def check_dimension(blocks, config):
    return blocks


def training_config(blocks, sup, unsup, mode):
    assert mode == "successive"
    kinds = ((unsup, "unsupervised", [0]), (sup, "supervised", [1]))
    keys = ("nb_epoch", "batch_size", "print_freq")
    return {f"t{b[0]}": {k: d[k] for k in keys} | {"mode": m, "blocks": b, "lr": 0.001} for d, m, b in kinds}


def train_unsup(model, loader, device, blocks):
    for images, _ in loader:
        model.blocks[0](images)


def train_sup(model, criterion, optimizer, loader, device, measures, learning_mode, blocks):
    for images, labels in loader:
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()


@torch.no_grad()
def evaluate_sup(model, criterion, loader, device):
    model.eval()
    right = [(model(images).argmax(dim=1) == labels).float() for images, labels in loader]
    return 0.0, 100 * torch.cat(right).mean()


# -- log


class LogSup:
    def __init__(self, config):
        self.config = config

    def new_log_batch(self):
        return []
