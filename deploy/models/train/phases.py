"""What every training phase needs: its budget of time, its learning rate, its state file, steps without launches."""
import copy
import math
import os
import time

import torch

EMPTY_SHARE = 0.10          # prompts replaced by the empty one, for guidance
ARTICLE_SHARE = 0.25        # captions with the other article, so that both are seen before every colour
CLIP_GRADIENT = 1.0


class Clock:
    """Seconds spent in a phase over all its calls, against its budget."""

    def __init__(self, spent, args):
        self.begin, self.before, self.budget = time.monotonic(), spent, args.seconds
        self.stop_after = args.stop_after or math.inf

    def spent(self):
        """Seconds over all calls."""
        return self.before + time.monotonic() - self.begin

    def share(self):
        """The share of the budget that is spent, at most 1."""
        return min(1.0, self.spent() / self.budget)

    def over(self):
        """True when the budget or this call's time is used up."""
        return self.share() >= 1.0 or time.monotonic() - self.begin >= self.stop_after


def learning_rate(peak, step, share, warm_up):
    """Linear warm-up over steps, then half a cosine over the budget, down to 2% of the peak."""
    return peak * min(1.0, (step + 1) / warm_up) * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * share)))


def save(path, state):
    """Write a state file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def autocast(device):
    """bf16 where a GPU makes that fast, else f32."""
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")


class Repeated:
    """A function without arguments that is called again and again and returns tensors; on a GPU it is captured as a
    CUDA graph after a few calls and replayed from then on, so that small kernels do not wait for Python.

    The function must do all its work on the device and wait for nothing: no .item(), no tensor from the CPU. What it
    returns is overwritten by the next call. Random numbers go on as they would without a graph.
    """
    WARM_UP = 4
    AHEAD = 16              # replays that may be waiting, lest a phase's clock runs ahead of its work

    def __init__(self, function, device, graph=True):
        self.function, self.wanted = function, graph and device == "cuda"
        self.calls, self.graph, self.result = 0, None, None

    def __call__(self):
        if not self.wanted:
            return self.function()
        if self.graph is None and self.calls < self.WARM_UP:
            self.calls += 1
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                result = self.function()
            torch.cuda.current_stream().wait_stream(aside)
            return result
        if self.graph is None:
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.result = self.function()
        self.graph.replay()
        self.calls += 1
        if self.calls % self.AHEAD == 0:
            torch.cuda.synchronize()
        return self.result


def make_optimiser(parameters, rate, device, decay=0.0):
    """AdamW as all phases use it; on a GPU its state and its rate stay there, so that a graph can hold its step."""
    on_gpu = device == "cuda"
    return torch.optim.AdamW(parameters, torch.tensor(rate, device=device) if on_gpu else rate, betas=(0.9, 0.99),
                             weight_decay=decay, fused=True, capturable=on_gpu)


def descend(optimiser, parameters):
    """One step along the gradients, their norm clipped; none at all where they are not finite, which is what the fused
    step's `found_inf` is for."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, CLIP_GRADIENT)
    optimiser.found_inf = (~torch.isfinite(norm)).float()
    optimiser.step()


def set_rate(optimiser, rate):
    """Give all groups this learning rate, in place where it is a tensor."""
    for group in optimiser.param_groups:
        if torch.is_tensor(group["lr"]):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class Average:
    """Weights that follow those of a network; `share` says how far they move a step, on the device."""

    def __init__(self, net, device):
        self.net = copy.deepcopy(net).requires_grad_(False).eval()
        self.share = torch.zeros((), device=device)
        self.source = list(net.parameters())

    def set_share(self, step, horizon):
        """Reach back `horizon` steps, fewer in the beginning."""
        self.share.fill_(max(1.0 / horizon, 19.0 / (step + 20)))

    @torch.no_grad()
    def follow(self):
        """Move by that share."""
        mine = list(self.net.parameters())
        gaps = torch._foreach_sub(self.source, mine)
        torch._foreach_mul_(gaps, self.share)
        torch._foreach_add_(mine, gaps)
