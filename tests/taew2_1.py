"""TAEHV's `taew2_1` written out in torch from its description, frame by frame.

The indices of its lists are the numbers in the published state dict.
"""

import numpy as np
import torch


def conv(a, b, **options):
    return torch.nn.Conv2d(a, b, 3, padding=1, **options)


class Clamp(torch.nn.Module):
    def forward(self, frames):
        return [3 * torch.tanh(x / 3) for x in frames]


class Memory(torch.nn.Module):
    def __init__(self, n):
        super().__init__()
        relu = torch.nn.ReLU()
        self.conv = torch.nn.Sequential(conv(2 * n, n), relu, conv(n, n), relu, conv(n, n))

    def forward(self, frames):
        past = [torch.zeros_like(frames[0]), *frames]
        both = zip(frames, past, strict=False)
        return [torch.relu(self.conv(torch.cat([x, before], 1)) + x) for x, before in both]


class Pool(torch.nn.Module):
    def __init__(self, n, stride):
        super().__init__()
        self.stride, self.conv = stride, torch.nn.Conv2d(stride * n, n, 1, bias=False)

    def forward(self, frames):
        starts = range(0, len(frames), self.stride)
        return [self.conv(torch.cat(frames[i : i + self.stride], 1)) for i in starts]


class Grow(torch.nn.Module):
    def __init__(self, n, stride):
        super().__init__()
        self.stride, self.conv = stride, torch.nn.Conv2d(n, stride * n, 1, bias=False)

    def forward(self, frames):
        return [part for x in frames for part in self.conv(x).chunk(self.stride, 1)]


class Reference(torch.nn.Module):
    def __init__(self):
        super().__init__()
        down = [conv(3, 64), torch.nn.ReLU()]
        for stride in (2, 2, 1):
            down += [Pool(64, stride), conv(64, 64, stride=2, bias=False), *(Memory(64) for _ in range(3))]
        up = [Clamp(), conv(16, 256), torch.nn.ReLU()]
        for n, after, stride in ((256, 128, 1), (128, 64, 2), (64, 64, 2)):
            up += [*(Memory(n) for _ in range(3)), torch.nn.Upsample(scale_factor=2)]
            up += [Grow(n, stride), conv(n, after, bias=False)]
        self.encoder = torch.nn.ModuleList([*down, conv(64, 16)])
        self.decoder = torch.nn.ModuleList([*up, torch.nn.ReLU(), conv(64, 3)])

    def run(self, layers, x):
        """Over the frames of [B, T, H, W, C]."""
        frames = list(torch.from_numpy(np.array(x)).permute(1, 0, 4, 2, 3))
        with torch.no_grad():
            for layer in layers:
                over_time = isinstance(layer, Clamp | Memory | Pool | Grow)
                frames = layer(frames) if over_time else [layer(x) for x in frames]
        return torch.stack(frames, 1).permute(0, 1, 3, 4, 2).numpy()


def reference():
    """With random weights, scaled so that outputs have unit scale: torch's own fade out over so many layers."""
    torch.manual_seed(0)
    model = Reference().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.mul_(1.6 if parameter.ndim > 1 else 1)
    model.decoder[22].bias.add_(0.5)  # most pixels within [0, 1]
    model.encoder[17].weight.mul_(10)
    return model
