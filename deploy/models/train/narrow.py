"""Phase narrow: an autoencoder of fewer channels on the latents of another one, so that the noise predictor stays.

The wide autoencoder has to find latents that a noise predictor learns easily, and takes a quarter of the model folder.
Once they are found, fewer channels do. The encoder learns to give the wide one's latents, the decoder to draw the
frames from the wide one's latents with noise of any level up to NOISE_MAX, as a noise predictor's latents have their
own errors. The two share no weight, and nothing that one computes reaches the other.

The host draws a step's frames; the networks, from the drawn frames on, are one graph on a GPU (phases.Repeated).
"""
import time

import numpy as np
import torch
import torch.nn.functional as functional

import grammar
import nets
import scenes
from phases import Clock, Repeated, autocast, descend, learning_rate, make_optimiser, save, set_rate

THING_WEIGHT = 8.0          # of a pixel that is not background; others have weight 1
NOISE_MAX = 0.25            # of a latent channel's spread
EDGE_WEIGHT = 0.5           # of the differences between neighbouring pixels, against that of the pixels
LATENT_WEIGHT = 0.5         # of the encoder's squared error, in spreads
VARIANCE_WEIGHT = 0.01      # of the error of its log variances, which no pipeline reads
SEED = 4                    # of this phase, beside --seed and the step; phases vae, latents, joint have 1, 2, 3


class Frames:
    """Drawn frames and the weights of their pixels in buffers of one place, which a graph can read."""

    def __init__(self, batch, device):
        self.pool, self.device, self.batch = grammar.scenes(seen=True), device, batch
        self.image = torch.empty(batch, 3, nets.SIZE, nets.SIZE, device=device, memory_format=torch.channels_last)
        self.weight = torch.empty(batch, 1, nets.SIZE, nets.SIZE, device=device)

    def draw(self, rng):
        """Fill the buffers with frames of random films."""
        shown = [self.pool[index] for index in rng.integers(len(self.pool), size=self.batch)]
        tracks = scenes.sample_tracks(shown, rng, nets.FRAMES)
        tracks = tracks.pick(np.arange(self.batch), rng.integers(nets.FRAMES, size=self.batch))
        self.image.copy_(scenes.draw(tracks, nets.SIZE, self.device)[:, 0])
        self.weight.copy_(1.0 + (THING_WEIGHT - 1.0) * (scenes.coverage(tracks, nets.SIZE, self.device) > 0.0))


def pixel_loss(error, weight):
    """Of drawn frames: absolute and squared differences, the thing's above all, and differences at edges."""
    level = ((error.abs() + 0.5 * error.square()) * weight / weight.mean()).mean()
    across = ((error[..., 1:] - error[..., :-1]).abs() * weight[..., 1:]).mean()
    down = ((error[..., 1:, :] - error[..., :-1, :]).abs() * weight[..., 1:, :]).mean()
    return level + EDGE_WEIGHT * (across + down) / weight.mean()


def train(args, device, wide):
    """Train, or go on; `wide` is the autoencoder whose latents are kept."""
    path = args.work / "narrow.pt"
    state = torch.load(path, map_location=device, weights_only=True) if path.exists() else None
    if state and state["widths"] != args.widths:
        raise SystemExit(f"{path} has widths {state['widths']}, --widths says {args.widths}")
    vae = nets.make_vae(args.preset, args.widths).to(device, memory_format=torch.channels_last)
    wide = wide.to(memory_format=torch.channels_last)
    parameters = list(vae.parameters())
    optimiser = make_optimiser(parameters, args.rate, device)
    step, spent = 0, 0.0
    if state:
        vae.load_state_dict(state["vae"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    torch.manual_seed(args.seed * 1_000_003 + step)
    frames, clock, saved = Frames(args.batch, device), Clock(spent, args), time.monotonic()

    def once():
        with autocast(device):
            with torch.no_grad():
                wanted = wide.encode(frames.image).latent_dist
            mean, spread = wanted.mean.float(), wanted.mean.float().std((0, 2, 3), keepdim=True)
            level = NOISE_MAX * torch.rand(len(mean), 1, 1, 1, device=device)
            given = vae.encode(frames.image).latent_dist
            again = vae.decode(mean + level * spread * torch.randn_like(mean)).sample
        error = again.float() - frames.image
        miss = ((given.mean.float() - mean) / spread).square().mean()
        variance = functional.l1_loss(given.logvar.float(), wanted.logvar.float())
        loss = pixel_loss(error, frames.weight) + LATENT_WEIGHT * miss + VARIANCE_WEIGHT * variance
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        descend(optimiser, parameters)
        return error.detach().abs().mean(), miss.detach()

    def keep():
        save(path, {"vae": vae.state_dict(), "widths": args.widths, "optimiser": optimiser.state_dict(), "step": step,
                    "spent": clock.spent()})

    repeated = Repeated(once, device, args.graph)
    while not clock.over():
        frames.draw(np.random.default_rng((args.seed, SEED, step)))
        set_rate(optimiser, learning_rate(args.rate, step, clock.share(), args.warm_up))
        level, miss = repeated()
        step += 1
        if step % (10 * args.log_every) == 0:
            print(f"narrow {step} l1 {level.item():.4f} latents {miss.item() ** 0.5:.4f} {clock.spent():.0f} s",
                  flush=True)
        if time.monotonic() - saved > args.save_every:
            keep()
            saved = time.monotonic()
    keep()
    print(f"narrow: {step} steps of {args.batch} frames in {clock.spent():.0f} s", flush=True)
    compare(vae.eval(), wide, device)


@torch.no_grad()
def compare(vae, wide, device, count=256):
    """Print how far both are from frames that training did not see, decoded from the wide encoder's latents."""
    frames = Frames(count, device)
    frames.draw(np.random.default_rng((0, SEED)))
    sums = dict.fromkeys(("wide", "narrow", "wide, noise 0.1", "narrow, noise 0.1", "narrow, own latents"), 0.0)
    miss = 0.0
    for image in frames.image.split(32):
        latent, own = wide.encode(image).latent_dist.mean, vae.encode(image).latent_dist.mean
        noisy = latent + 0.1 * latent.std((0, 2, 3), keepdim=True) * torch.randn_like(latent)
        drawn = (wide.decode(latent), vae.decode(latent), wide.decode(noisy), vae.decode(noisy), vae.decode(own))
        for name, again in zip(sums, drawn):
            sums[name] += (again.sample.clamp(-1.0, 1.0) - image).abs().mean().item() * len(image) / count
        miss += ((own - latent) / latent.std((0, 2, 3), keepdim=True)).square().mean().item() * len(image) / count
    print("narrow: l1 " + "; ".join(f"{name} {value:.4f}" for name, value in sums.items())
          + f"; latents apart {miss ** 0.5:.4f} spreads", flush=True)


def load(args, device):
    """The trained narrow autoencoder and the state it was in."""
    state = torch.load(args.work / "narrow.pt", map_location=device, weights_only=True)
    vae = nets.make_vae(args.preset, state["widths"]).to(device)
    vae.load_state_dict(state["vae"])
    vae.eval().requires_grad_(False)
    vae.register_to_config(scaling_factor=nets.LATENT_STD)
    return vae, state
