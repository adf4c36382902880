"""Trains the demo model in phases that can be stopped and continued: vae, latents, joint, narrow, export.

    python train_modelscope.py vae     --preset full --work out/demo --seconds 120
    python train_modelscope.py latents --preset full --work out/demo --clips 32768
    python train_modelscope.py joint   --preset full --work out/demo --seconds 1200 --stop-after 560
    python train_modelscope.py joint   --preset full --work out/demo --seconds 1200
    python train_modelscope.py narrow  --preset full --work out/demo --seconds 160
    python train_modelscope.py export  --preset full --work out/demo --narrow --folder ../shapes-modelscope

Each phase keeps its state in one file under --work and goes on from there when it is called again. --seconds is the
phase's whole budget over all its calls: the learning rate falls with the share of it that is spent, so a slow machine
trains less but ends as smoothly as a fast one. --stop-after ends this one call sooner.

What is done here beyond the plain recipe, and why:
- Latents are scaled to a standard deviation of 0.5, not 1. A film's 16 frames agree with one another, so at the largest
  timestep of these betas a network can still read colours through noise that hides them in one picture; sampling starts
  from noise in which there is nothing to read. Smaller latents make the two alike.
- The loss of a timestep is weighted (see loss_weights) so that the noisy ones, where what moves and where is decided,
  count as much as the clean ones, which have the larger errors.
- The dropout that UNet3DConditionModel has inside its temporal convolutions is switched off.
- Nothing in UNet3DConditionModel says which frame comes first but the zero padding of its temporal convolutions, and a
  film that is played backwards is as likely as before. Without help training stays on that saddle: after 3,300 steps
  every film was sharp and every second one moved the wrong way (text states of `left` and `right`: equal). Two linear
  heads that only training knows lead away from it (see Hints), and half of each batch is drawn from the noisiest fifth
  of the timesteps, where the words alone can tell the direction.
- The autoencoder that training wants is wider than the one that films need: phase narrow makes the latter, narrow.py.
"""
import argparse
import copy
import json
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL, UNet3DConditionModel
from transformers import CLIPTextModel

import export
import grammar
import model_card
import narrow
import nets
import scenes
import vocabulary
from phases import ARTICLE_SHARE, CLIP_GRADIENT, EMPTY_SHARE, Clock, autocast, learning_rate, save

THING_WEIGHT = 8.0          # of a pixel that is not background, when the autoencoder trains; others have weight 1
LATENT_NOISE = 0.1          # of a latent channel's spread, added before decoding when the autoencoder trains
WEIGHT_KNEE, WEIGHT_FLOOR = 0.02, 0.3
NOISY_FROM = 0.8            # of the timesteps: where half of each batch is drawn from
HINT_WEIGHT = 0.01


def random_scenes(count, rng, pool):
    """Scenes of the pool, each as likely."""
    return [pool[index] for index in rng.integers(len(pool), size=count)]


def random_caption(scene, rng):
    """A caption of the scene, now and then with the other article."""
    right = grammar.caption(scene).split()[0]
    other = "a" if right == "an" else "an"
    return grammar.caption(scene, other if rng.random() < ARTICLE_SHARE else right)


# ---- autoencoder ----------------------------------------------------------------------------------------------------

def train_vae(args, device):
    """Phase vae: the autoencoder on single frames of random sizes out of --sizes."""
    path = args.work / "vae.pt"
    vae = nets.make_vae(args.preset).to(device)
    optimiser = torch.optim.AdamW(vae.parameters(), args.rate, betas=(0.9, 0.99), weight_decay=0.0)
    step, spent = 0, 0.0
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        vae.load_state_dict(state["vae"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    if args.freeze_encoder:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    pool, clock, saved, mean = grammar.scenes(seen=True), Clock(spent, args), time.monotonic(), None

    def keep():
        save(path, {"vae": vae.state_dict(), "optimiser": optimiser.state_dict(), "step": step,
                    "spent": clock.spent()})

    while not clock.over():
        rng = np.random.default_rng((args.seed, 1, step))
        size = args.sizes[step % len(args.sizes)]
        batch = max(2, args.batch * nets.SIZE ** 2 // (args.crop or size) ** 2)
        tracks = scenes.sample_tracks(random_scenes(batch, rng, pool), rng, nets.FRAMES)
        tracks = tracks.pick(np.arange(batch), rng.integers(nets.FRAMES, size=batch))
        image = scenes.draw(tracks, size, device)[:, 0]
        weight = 1.0 + (THING_WEIGHT - 1.0) * (scenes.coverage(tracks, size, device) > 0.0)
        if args.crop and args.crop < size:
            image, weight = crop(image, weight, tracks, args.crop, rng)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(args.rate, step, clock.share(), 50)
        with autocast(device):
            posterior = vae.encode(image).latent_dist
            latent = posterior.sample()
            spread = latent.detach().std((0, 2, 3), keepdim=True)
            latent = latent + LATENT_NOISE * spread * torch.randn_like(latent)
            again = vae.decode(latent).sample
        kl = posterior.kl().mean() / latent[0].numel()
        error = again.float() - image
        loss = ((error.abs() + 0.5 * error.square()) * weight / weight.mean()).mean() + args.kl * kl
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), CLIP_GRADIENT)
        optimiser.step()
        step += 1
        if step % args.log_every == 0:
            level = error.abs().mean().item()
            mean = level if mean is None else 0.7 * mean + 0.3 * level
            print(f"vae {step} l1 {mean:.4f} kl {kl.item():.2f} {clock.spent():.0f} s", flush=True)
        if time.monotonic() - saved > args.save_every:
            keep()
            saved = time.monotonic()
    keep()


def crop(image, weight, tracks, side, rng):
    """A square of each picture, near its thing: a small autoencoder learns most where there is something to see."""
    count, size = len(image), image.shape[-1]
    corners = []
    for middle in (tracks.x, tracks.y):
        start = middle[:, 0] * size - side / 2 + rng.uniform(-side / 2, side / 2, count)
        corners.append(np.clip(start, 0, size - side).astype(int))
    squares = [(slice(None), slice(y, y + side), slice(x, x + side)) for x, y in zip(*corners)]
    return (torch.stack([picture[square] for picture, square in zip(image, squares)]),
            torch.stack([picture[square] for picture, square in zip(weight, squares)]))


def load_vae(args, device):
    """The trained autoencoder with its scaling factor set: that of --teacher, or else of phase vae."""
    if args.teacher:
        return AutoencoderKL.from_pretrained(args.teacher / "vae").to(device).eval().requires_grad_(False)
    state = torch.load(args.work / "vae.pt", map_location=device, weights_only=True)
    vae = nets.make_vae(args.preset).to(device)
    vae.load_state_dict(state["vae"])
    vae.eval().requires_grad_(False)
    whiten(vae, device)
    vae.register_to_config(scaling_factor=nets.LATENT_STD)
    return vae


@torch.no_grad()
def whiten(vae, device):
    """Give each latent channel mean 0 and standard deviation 1 over full-size frames; what is decoded stays the same.

    The pipeline knows one scaling factor and no shift, but the 1x1 convolutions on both sides of the latents can hold
    any shift and scale a channel.
    """
    rng = np.random.default_rng(0)
    tracks = scenes.sample_tracks(random_scenes(128, rng, grammar.scenes(seen=True)), rng, nets.FRAMES)
    frames = scenes.draw(tracks.pick(np.arange(128), rng.integers(nets.FRAMES, size=128)), nets.SIZE, device)[:, 0]
    latent = torch.cat([vae.encode(part).latent_dist.mode() for part in frames.split(8)])
    mean, std = latent.mean((0, 2, 3)), latent.std((0, 2, 3))
    into, back, count = vae.quant_conv, vae.post_quant_conv, len(mean)
    into.bias[:count] -= mean
    into.bias[:count] /= std
    into.weight[:count] /= std.view(-1, 1, 1, 1)
    into.bias[count:] -= 2.0 * std.log()
    back.bias += back.weight[:, :, 0, 0] @ mean
    back.weight *= std.view(1, -1, 1, 1)


# ---- clips as latents -----------------------------------------------------------------------------------------------

class Clips:
    """A store of encoded clips with their scenes; old ones are replaced by new ones as training goes on."""

    def __init__(self, args, vae, device):
        self.vae, self.device, self.size = vae, device, args.size
        self.pool = grammar.scenes(seen=True)
        self.number = {scene: index for index, scene in enumerate(self.pool)}
        self.latents = self.labels = None
        self.next = 0

    @torch.no_grad()
    def encode(self, count, rng):
        """New clips: (scaled latents f16 [count, 4, T, h, w], scene numbers)."""
        chosen = random_scenes(count, rng, self.pool)
        film = scenes.draw(scenes.sample_tracks(chosen, rng, nets.FRAMES), self.size, self.device)
        with autocast(self.device):
            latent = torch.cat([self.vae.encode(part).latent_dist.mode() for part in film.flatten(0, 1).split(512)])
        latent = (latent * self.vae.config.scaling_factor).unflatten(0, (count, nets.FRAMES)).transpose(1, 2)
        return latent.half().contiguous(), torch.tensor([self.number[scene] for scene in chosen])

    def fill(self, count, seed, chunk=32):
        """Make the store anew with `count` clips."""
        parts = [self.encode(min(chunk, count - done), np.random.default_rng((seed, 2, done)))
                 for done in range(0, count, chunk)]
        self.latents, self.labels = (torch.cat(column) for column in zip(*parts))

    def refresh(self, count, rng):
        """Replace the `count` oldest clips."""
        where = (self.next + torch.arange(count)) % len(self.labels)
        latents, labels = self.encode(count, rng)
        self.latents[where.to(self.latents.device)], self.labels[where] = latents, labels
        self.next = (self.next + count) % len(self.labels)

    def batch(self, count, rng):
        """(latents f32, scenes) of random clips."""
        rows = torch.from_numpy(rng.integers(len(self.labels), size=count))
        return self.latents[rows.to(self.latents.device)].float(), [self.pool[index] for index in self.labels[rows]]


def make_latents(args, device):
    """Phase latents: encode the first store of clips."""
    begin = time.monotonic()
    clips = Clips(args, load_vae(args, device), device)
    clips.fill(args.clips, args.seed)
    save(args.work / f"latents-{args.size}.pt", {"latents": clips.latents.cpu(), "labels": clips.labels})
    print(f"latents {tuple(clips.latents.shape)} scaling factor {clips.vae.config.scaling_factor} "
          f"std {clips.latents.float().std().item():.3f} {time.monotonic() - begin:.0f} s", flush=True)


def load_clips(args, vae, device):
    """The stored clips, on the device."""
    clips = Clips(args, vae, device)
    state = torch.load(args.work / f"latents-{args.size}.pt", map_location=device, weights_only=True)
    clips.latents, clips.labels = state["latents"], state["labels"].cpu()
    return clips


# ---- text encoder and noise predictor -------------------------------------------------------------------------------

def loss_weights(alphas):
    """A weight for each timestep's squared error: 1 / (SNR + knee) + floor, with mean 1 over the timesteps."""
    ratio = nets.LATENT_STD ** 2 * alphas / (1.0 - alphas)
    weights = 1.0 / (ratio + WEIGHT_KNEE) + WEIGHT_FLOOR
    return weights / weights.mean()


def flatten_temporal_convolutions(net):
    """Run each convolution over time alone (kernel 3x1x1) as one of 3x1 over [T, H * W]: the compiler plans it better."""
    def forward(self, x):
        flat = functional.conv2d(x.flatten(3), self.weight[..., 0], self.bias, padding=(1, 0))
        return flat.unflatten(3, x.shape[3:])

    for module in net.modules():
        if isinstance(module, torch.nn.Conv3d) and module.kernel_size == (3, 1, 1):
            module.forward = forward.__get__(module)


def draw_timesteps(batch, count, device):
    """Half of them from all timesteps, half from the noisiest ones; each half one from each of equal ranges: the same
    distribution, with less variance between batches."""
    half = batch // 2
    first = (torch.arange(half, device=device) + torch.rand(half, device=device)) / max(1, half)
    second = (torch.arange(batch - half, device=device) + torch.rand(batch - half, device=device)) / (batch - half)
    shares = torch.cat([first, NOISY_FROM + (1.0 - NOISY_FROM) * second])
    return (shares * count).long().clamp(max=count - 1)


class Learner:
    """Text encoder and noise predictor with their optimiser and averaged weights."""

    def __init__(self, args, device):
        self.text_encoder = nets.make_text_encoder().to(device)
        self.unet = nets.make_unet(args.preset).to(device)
        for module in self.unet.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        self.both = torch.nn.ModuleList([self.text_encoder, self.unet])
        self.average = copy.deepcopy(self.both).requires_grad_(False)
        self.parameters = list(self.both.parameters())
        self.hints = Hints(self.unet).to(device)
        self.optimiser = torch.optim.AdamW([*self.parameters, *self.hints.parameters()], args.rate, betas=(0.9, 0.99), weight_decay=0.01,
                                           fused=device == "cuda")
        self.step, self.spent = 0, 0.0
        self.predict = self.unet
        if args.compile:
            flatten_temporal_convolutions(self.unet)
            self.predict = torch.compile(self.unet, dynamic=False)

    def state(self, spent):
        """Everything that going on needs."""
        return {"both": self.both.state_dict(), "average": self.average.state_dict(), "hints": self.hints.state_dict(),
                "optimiser": self.optimiser.state_dict(), "step": self.step, "spent": spent}

    def load(self, state):
        """Go on from a state."""
        self.both.load_state_dict(state["both"])
        self.average.load_state_dict(state["average"])
        self.hints.load_state_dict(state["hints"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.spent = state["step"], state["spent"]

    def start_from(self, state):
        """Take over the averaged weights of another training and nothing else."""
        self.both.load_state_dict(state["average"])
        self.average.load_state_dict(state["average"])

    @torch.no_grad()
    def follow(self, horizon):
        """Move the averaged weights towards the present ones; `horizon` steps is how far back they reach at most."""
        decay = min(1.0 - 1.0 / horizon, (self.step + 1) / (self.step + 20))
        torch._foreach_lerp_(list(self.average.parameters()), self.parameters, 1.0 - decay)


class Hints(torch.nn.Module):
    """What else training asks: the motion of the caption from the text states, the place of each frame from the features
    in the middle of the unet. Linear heads, thrown away afterwards."""

    def __init__(self, unet):
        super().__init__()
        self.motion = torch.nn.Linear(nets.TEXT_WIDTH, len(grammar.MOTIONS))
        self.place = torch.nn.Linear(unet.config.block_out_channels[-1], 1)
        self.features = None
        unet.mid_block.register_forward_hook(self.keep)

    def keep(self, _module, _inputs, output):
        """Called after the middle of the unet: output [B * T, C, h, w]."""
        self.features = output

    def loss(self, states, shown, named):
        """Cross entropy of the motions of captions that are not empty, plus squared error of places in -1..1."""
        motions = torch.tensor([grammar.MOTIONS.index(scene.motion) for scene in shown], device=states.device)
        guesses = self.motion(states.float().mean(1))
        told = (functional.cross_entropy(guesses, motions, reduction="none") * named).mean()
        places = self.place(self.features.float().mean((2, 3))).view(len(shown), -1)
        wanted = torch.linspace(-1.0, 1.0, places.shape[1], device=places.device)
        return told, (places - wanted).square().mean()


class BinnedLoss:
    """Running means of the unweighted loss in five equal ranges of timesteps."""

    def __init__(self):
        self.means = [None] * 5

    def add(self, timesteps, losses):
        """Count one batch."""
        for bin_, loss in zip((timesteps * 5 // 1000).tolist(), losses.tolist()):
            old = self.means[bin_]
            self.means[bin_] = loss if old is None else 0.98 * old + 0.02 * loss

    def __str__(self):
        return " ".join("-" if mean is None else f"{mean:.4f}" for mean in self.means)


def train_joint(args, device):
    """Phase joint: text encoder and noise predictor on stored clips."""
    path = args.work / f"{args.name}.pt"
    learner = Learner(args, device)
    if path.exists():
        learner.load(torch.load(path, map_location=device, weights_only=True))
    elif args.start:
        learner.start_from(torch.load(args.start, map_location=device, weights_only=True))
    clips = load_clips(args, load_vae(args, device), device)
    tokenize = vocabulary.WordTokenizer(nets.WINDOW)
    empty = tokenize("")
    alphas = nets.make_scheduler().alphas_cumprod.to(device)
    weights = loss_weights(alphas) if args.weighting == "balanced" else torch.ones_like(alphas)
    clock, saved, bins, mean = Clock(learner.spent, args), time.monotonic(), BinnedLoss(), None

    while not clock.over():
        rng = np.random.default_rng((args.seed, 3, learner.step))
        torch.manual_seed(args.seed * 1_000_003 + learner.step)
        if args.refresh and learner.step % args.refresh_every == 0:
            clips.refresh(args.refresh, rng)
        latents, shown = clips.batch(args.batch, rng)
        if args.stills:
            frames = torch.from_numpy(rng.integers(nets.FRAMES, size=args.batch)).to(device)
            latents = latents[torch.arange(args.batch, device=device), :, frames][:, :, None]
        named = torch.from_numpy((rng.random(args.batch) >= EMPTY_SHARE).astype(np.float32)).to(device)
        ids = torch.tensor([tokenize(random_caption(scene, rng)) if told else empty
                            for scene, told in zip(shown, named.tolist())], device=device)
        timesteps = draw_timesteps(args.batch, len(alphas), device)
        noise = torch.randn_like(latents)
        alpha = alphas[timesteps].view(-1, 1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1.0 - alpha).sqrt() * noise
        for group in learner.optimiser.param_groups:
            group["lr"] = learning_rate(args.rate, learner.step, clock.share(), args.warm_up)
        with autocast(device):
            states = learner.text_encoder(ids).last_hidden_state
            guess = learner.predict(noisy, timesteps, encoder_hidden_states=states, return_dict=False)[0]
        losses = functional.mse_loss(guess.float(), noise, reduction="none").mean((1, 2, 3, 4))
        told, placed = learner.hints.loss(states, shown, named)
        loss = (losses * weights[timesteps]).mean()
        learner.optimiser.zero_grad(set_to_none=True)
        (loss + HINT_WEIGHT * (told + placed)).backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters, CLIP_GRADIENT)
        learner.optimiser.step()
        learner.step += 1
        learner.follow(args.horizon)
        if learner.step % args.log_every == 0:
            bins.add(timesteps, losses.detach())
            mean = loss.item() if mean is None else 0.9 * mean + 0.1 * loss.item()
        if learner.step % (10 * args.log_every) == 0:
            print(f"joint {learner.step} loss {mean:.4f} by timestep {bins} "
                  f"hints {told.item():.4f} {placed.item():.4f} {clock.spent():.0f} s", flush=True)
        if time.monotonic() - saved > args.save_every:
            save(path, learner.state(clock.spent()))
            saved = time.monotonic()
    save(path, learner.state(clock.spent()))
    print(f"joint: {learner.step} steps of {args.batch} clips in {clock.spent():.0f} s", flush=True)


# ---- narrower autoencoder and export --------------------------------------------------------------------------------

def train_narrow(args, device):
    """Phase narrow: an autoencoder of --widths on the latents of the trained one."""
    narrow.train(args, device, load_vae(args, device))


def load_joint(args):
    """(text encoder, noise predictor, a sentence on their training): those of --teacher, or else of phase joint."""
    if args.teacher:
        return (CLIPTextModel.from_pretrained(args.teacher / "text_encoder"),
                UNet3DConditionModel.from_pretrained(args.teacher / "unet"), "")
    state = torch.load(args.work / f"{args.name}.pt", map_location="cpu", weights_only=True)
    learner = Learner(args, "cpu")
    learner.average.load_state_dict(state["average"])
    return *learner.average, f"Trained for {state['step']:,} steps in {state['spent'] / 60:.0f} minutes."


def write_model(args, device):
    """Phase export: the averaged weights as a model folder."""
    del device
    text_encoder, unet, said = load_joint(args)
    sentences = [args.note, said]
    if args.narrow:
        vae, state = narrow.load(args, "cpu")
        sentences.append(f"The autoencoder learned the latents of a wider one in {state['step']:,} steps, "
                         f"{state['spent'] / 60:.0f} minutes.")
    else:
        vae = load_vae(args, "cpu")
    scores = json.loads(args.scores.read_text()) if args.scores else {}
    card = model_card.model_card(vae, text_encoder, unet, args.size, " ".join(filter(None, sentences)), scores)
    export.write_folder(args.folder, vae, text_encoder, unet, card, size=args.size)
    print(f"export: {args.folder}", flush=True)


PHASES = {"vae": train_vae, "latents": make_latents, "joint": train_joint, "narrow": train_narrow,
          "export": write_model}


def parse(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("phase", choices=tuple(PHASES))
    parser.add_argument("--preset", choices=sorted(nets.PRESETS), default="full", help="sizes of the networks")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder of the state files")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0: torch's choice")
    parser.add_argument("--seed", type=int, default=1, help="of everything random")
    parser.add_argument("--seconds", type=float, default=120, help="budget of the phase over all its calls")
    parser.add_argument("--stop-after", type=float, default=0, help="end this call after so many seconds, 0: never")
    parser.add_argument("--save-every", type=float, default=60, help="seconds between two state files")
    parser.add_argument("--log-every", type=int, default=20, help="steps between two measurements of the loss")
    parser.add_argument("--batch", type=int, default=64, help="full-size frames (vae, narrow) or clips (joint) a step")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--sizes", type=int, nargs="+", default=[nets.SIZE], help="vae: frame sizes, taken in turn")
    parser.add_argument("--crop", type=int, default=0, help="vae: train on squares of this side, 0: on whole frames")
    parser.add_argument("--kl", type=float, default=1e-5, help="vae: weight of the divergence from plain noise")
    parser.add_argument("--freeze-encoder", action="store_true",
                        help="vae: train the decoder alone, so that stored latents stay good")
    parser.add_argument("--teacher", type=pathlib.Path,
                        help="narrow, export: a model folder with the networks of phases vae and joint")
    parser.add_argument("--widths", type=int, nargs=4, default=[16, 32, 48, 64],
                        help="narrow: channels of the blocks, multiples of half the first")
    parser.add_argument("--no-graph", dest="graph", action="store_false", help="narrow: do not use CUDA graphs")
    parser.add_argument("--narrow", action="store_true", help="export: with the autoencoder of phase narrow")
    parser.add_argument("--size", type=int, default=nets.SIZE, help="latents, joint, export: width of the films")
    parser.add_argument("--clips", type=int, default=32768, help="latents: clips in the store")
    parser.add_argument("--refresh", type=int, default=8, help="joint: clips drawn anew at a time")
    parser.add_argument("--refresh-every", type=int, default=1, help="joint: steps between two refreshes")
    parser.add_argument("--warm-up", type=int, default=200,
                        help="joint, narrow: steps until the learning rate is at its peak")
    parser.add_argument("--horizon", type=float, default=1000, help="joint: steps that the averaged weights reach back")
    parser.add_argument("--weighting", choices=("balanced", "uniform"), default="balanced", help="joint: of the loss")
    parser.add_argument("--compile", action="store_true",
                        help="joint: torch.compile the unet: two minutes at the first step, then 40%% less time a step")
    parser.add_argument("--name", default="joint", help="joint, export: name of the state file")
    parser.add_argument("--stills", action="store_true",
                        help="joint: single frames, 16 times cheaper, to begin a training on a slow machine with")
    parser.add_argument("--start", type=pathlib.Path, help="joint: state file of another training to begin with")
    parser.add_argument("--folder", type=pathlib.Path, help="export: the model folder to write")
    parser.add_argument("--note", default="", help="export: sentences for the model card, on how it was trained")
    parser.add_argument("--scores", type=pathlib.Path, help="export: what sample.py wrote, for the model card")
    args = parser.parse_args(arguments)
    if args.phase == "export" and not args.folder:
        parser.error("export needs --folder")
    return args


def main():
    """Run one phase."""
    args = parse()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True   # the shapes of a phase hardly change
    PHASES[args.phase](args, args.device)


if __name__ == "__main__":
    main()
