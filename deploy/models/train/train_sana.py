"""Trains the two picture models in phases that can be stopped and continued: vae, latents, joint, sprint, export.

    python train_sana.py vae     --work out/images --seconds 240
    python train_sana.py latents --work out/images --pictures 65536
    python train_sana.py joint   --work out/images --seconds 300 --stop-after 150
    python train_sana.py joint   --work out/images --seconds 300
    python train_sana.py sprint  --work out/images --seconds 120
    python train_sana.py export  --work out/images --folder ../shapes-sana --sprint-folder ../shapes-sana-sprint
    python train_sana.py vae latents joint --work out/images --seconds 240 0 300        the same in one call

Each phase keeps its state in one file under --work and goes on from there when it is called again. --seconds is the
phase's whole budget over all its calls, and the learning rate falls with the share of it that is spent; --stop-after
ends this one call sooner.

The networks are so small that launching their kernels would take longer than running them. So everything of a step
happens on the device, the drawing and the captions included, and a GPU replays it as one graph (phases.Repeated;
--no-graph for step by step).

What is done here beyond the plain recipe, and why:
- The autoencoder has no divergence that would keep its latents in order, so a small penalty draws every channel towards
  mean 0 and a standard deviation of RAW_STD. Scales that remain are folded into its convolutions (even_out).
- It is trained with noise on its latents, so that a velocity predictor's small errors do not show.
- Noise levels are drawn evenly and then shifted as the sampler's are, and the network is told their timestep as the
  sampler tells it: a whole number, cut off.
- Linear heads that only training knows ask the text states for each slot of the caption (see Hints). Words get their
  meaning from that before pictures could teach it.
- Sprint is not trained by its published recipe but by the shortest way to a network of exactly two steps: sprint.py.
"""
import argparse
import copy
import json
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as functional
from diffusers.models.normalization import RMSNorm

import export_sana
import grammar_images as grammar
import model_card_sana
import nets_sana as nets
import scenes_images as scenes
import sprint
import vocabulary_gemma
from phases import (ARTICLE_SHARE, EMPTY_SHARE, Average, Clock, Repeated, autocast, descend, learning_rate,
                    make_optimiser, save, set_rate)

ALONE_SHARE = 0.25          # of the pictures: those with one thing
THING_WEIGHT = 8.0          # of a pixel that is not background, when the autoencoder trains; others have weight 1
LATENT_NOISE = 0.1          # of a latent channel's spread, added before decoding when the autoencoder trains
SPREAD_WEIGHT = 0.02        # of the penalty that keeps the latents' channels alike
HINT_WEIGHT = 0.1


class Pool:
    """The scenes of training with all that a step needs to know of them, on the device."""

    def __init__(self, device):
        every = grammar.scenes(seen=True)
        self.device, self.count = device, len(every)
        self.alone = sum(not scene.relation for scene in every)
        self.labels = torch.from_numpy(scenes.labels(every)).to(device)
        tokenize = vocabulary_gemma.WordTokenizer(nets.TRAIN_WINDOW)
        self.captions = torch.tensor([[tokenize(text) for text in wordings(scene)] for scene in every], device=device)
        self.empty = torch.tensor(tokenize(""), device=device)

    def draw(self, count):
        """Numbers of random scenes, [count]."""
        single = torch.rand(count, device=self.device) < ALONE_SHARE
        share = torch.rand(count, device=self.device)
        number = torch.where(single, share * self.alone, self.alone + share * (self.count - self.alone)).long()
        return number.clamp(max=self.count - 1)

    def wording(self, count):
        """For each of `count` captions which of its wordings to take: now and then one with another article."""
        other = torch.rand(2, count, device=self.device) < ARTICLE_SHARE
        return other[0].long() + 2 * other[1].long()

    def pictures(self, numbers):
        """(pictures f32 [N, 3, SIZE, SIZE] in -1..1, share of each pixel that is not background [N, 1, SIZE, SIZE])."""
        uniform = torch.rand(len(numbers), scenes.UNIFORMS, device=self.device)
        things = scenes.place(self.labels[numbers], uniform, torch)
        cover = scenes.coverage(things, nets.SIZE, torch)
        return scenes.draw(things, nets.SIZE, cover), cover.sum(1, keepdim=True)


def wordings(scene):
    """The four captions of a scene: number 1 and 3 with the other first article, 2 and 3 with the other second one."""
    other = {"a": "an", "an": "a"}
    first, second = grammar.article(scene.colour), grammar.article(scene.other_colour or "red")
    return [grammar.caption(scene, (one, two)) for two in (second, other[second]) for one in (first, other[first])]


# ---- autoencoder ----------------------------------------------------------------------------------------------------

def quicken_norms(net):
    """Compute each RMSNorm by torch's own function, which is one kernel where diffusers' has seven."""
    def forward(self, x):
        return functional.rms_norm(x.float(), self.weight.shape, self.weight, self.eps) + self.bias

    for module in net.modules():
        if isinstance(module, RMSNorm):
            module.forward = forward.__get__(module)


def train_vae(args, device):
    """Phase vae: the autoencoder on pictures drawn for each step."""
    path = args.work / "vae.pt"
    vae = nets.make_vae(args.preset).to(device, memory_format=torch.channels_last)
    quicken_norms(vae)
    parameters = list(vae.parameters())
    optimiser = make_optimiser(parameters, args.rate, device)
    step, spent = 0, 0.0
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        vae.load_state_dict(state["vae"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    torch.manual_seed(args.seed * 1_000_003 + step)
    pool, clock, saved = Pool(device), Clock(spent, args), time.monotonic()

    def once():
        image, thing = pool.pictures(pool.draw(args.batch))
        image = image.contiguous(memory_format=torch.channels_last)
        weight = 1.0 + (THING_WEIGHT - 1.0) * (thing > 0.0)
        with autocast(device):
            latent = vae.encode(image).latent.float()
            again = vae.decode(latent + LATENT_NOISE * nets.RAW_STD * torch.randn_like(latent)).sample
        mean, std = latent.mean((0, 2, 3)) / nets.RAW_STD, latent.std((0, 2, 3)) / nets.RAW_STD
        spread = (mean.square() + (std + 1e-6).log().square()).mean()
        error = again.float() - image
        loss = ((error.abs() + 0.5 * error.square()) * weight / weight.mean()).mean() + SPREAD_WEIGHT * spread
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        descend(optimiser, parameters)
        return error.detach().abs().mean(), spread.detach()

    def keep():
        save(path, {"vae": vae.state_dict(), "optimiser": optimiser.state_dict(), "step": step,
                    "spent": clock.spent()})

    repeated = Repeated(once, device, args.graph)
    while not clock.over():
        set_rate(optimiser, learning_rate(args.rate, step, clock.share(), args.warm_up))
        level, spread = repeated()
        step += 1
        if step % args.log_every == 0:
            print(f"vae {step} l1 {level.item():.4f} spread {spread.item():.4f} {clock.spent():.0f} s", flush=True)
        if time.monotonic() - saved > args.save_every:
            keep()
            saved = time.monotonic()
    keep()
    print(f"vae: {step} steps of {args.batch} pictures in {clock.spent():.0f} s", flush=True)


def load_vae(args, device):
    """The trained autoencoder, its latents' channels of equal spread."""
    state = torch.load(args.work / "vae.pt", map_location=device, weights_only=True)
    vae = nets.make_vae(args.preset).to(device)
    vae.load_state_dict(state["vae"])
    vae.eval().requires_grad_(False)
    even_out(vae, device)
    return vae


@torch.no_grad()
def even_out(vae, device):
    """Give each latent channel a standard deviation of RAW_STD; what is decoded stays the same.

    A scale can be moved through the convolutions at the latents and through the shortcuts beside them, which are
    convolutions of one pixel. A shift could not: at the border the decoder's convolution sees zeros.
    """
    pool = Pool("cpu")
    numbers = torch.linspace(0, pool.count - 1, 128).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        picture, _ = pool.pictures(numbers)
    latent = torch.cat([vae.encode(part.to(device)).latent for part in picture.split(16)])
    factor = nets.RAW_STD / latent.std((0, 2, 3))
    for conv, by, shortcut in ((vae.encoder.conv_out, factor, vae.encoder.out_shortcut_average_group_size),
                               (vae.decoder.conv_in, 1.0 / factor, vae.decoder.in_shortcut_repeats)):
        into = conv is vae.encoder.conv_out
        conv.weight *= by.view(-1, 1, 1, 1) if into else by.view(1, -1, 1, 1)
        if into:
            conv.bias *= by
        for channel in range(nets.CHANNELS):
            for other in range(channel * shortcut, (channel + 1) * shortcut):
                where = (channel, other) if into else (other, channel)
                conv.weight[(*where, 1, 1)] += (by[channel] - 1.0) / (shortcut if into else 1)


# ---- pictures as latents --------------------------------------------------------------------------------------------

class Store:
    """Encoded pictures with the numbers of their scenes, on the device; old ones are replaced as training goes on."""

    def __init__(self, vae, pool, device):
        self.vae, self.pool, self.device = vae, pool, device
        self.latents = self.numbers = None
        self.next = 0

    @torch.no_grad()
    def encode(self, count):
        """New pictures: (scaled latents f16 [count, CHANNELS, LATENT, LATENT], numbers of scenes)."""
        numbers = self.pool.draw(count)
        picture, _ = self.pool.pictures(numbers)
        with autocast(self.device):
            latent = self.vae.encode(picture).latent
        return (latent.float() * nets.SCALING_FACTOR).half().contiguous(), numbers

    def fill(self, count, chunk):
        """Make the store anew with `count` pictures."""
        parts = [self.encode(min(chunk, count - done)) for done in range(0, count, chunk)]
        self.latents, self.numbers = (torch.cat(column) for column in zip(*parts))

    def refresh(self, count):
        """Replace the `count` oldest pictures."""
        where = (self.next + torch.arange(count, device=self.device)) % len(self.numbers)
        self.latents[where], self.numbers[where] = self.encode(count)
        self.next = (self.next + count) % len(self.numbers)


def make_latents(args, device):
    """Phase latents: encode the first store of pictures."""
    begin = time.monotonic()
    torch.manual_seed(args.seed * 1_000_003 - 1)
    store = Store(load_vae(args, device), Pool(device), device)
    store.fill(args.pictures, args.chunk)
    save(args.work / "latents.pt", {"latents": store.latents.cpu(), "numbers": store.numbers.cpu()})
    values = store.latents[:4096].float()
    print(f"latents {tuple(store.latents.shape)} std {values.std().item():.3f} of channels "
          f"{values.std((0, 2, 3)).min().item():.3f}-{values.std((0, 2, 3)).max().item():.3f} largest mean "
          f"{values.mean((0, 2, 3)).abs().max().item():.3f} {time.monotonic() - begin:.0f} s", flush=True)


def load_store(args, device):
    """The stored pictures, on the device."""
    store = Store(load_vae(args, device), Pool(device), device)
    state = torch.load(args.work / "latents.pt", map_location=device, weights_only=True)
    store.latents, store.numbers = state["latents"], state["numbers"]
    return store


# ---- text encoder and velocity predictor ----------------------------------------------------------------------------

def text_states(text_encoder, ids):
    """The last hidden states of ids that are padded on the right; the mask is made here, as a graph can hold it."""
    window = ids.shape[1]
    later = torch.ones(window, window, device=ids.device, dtype=torch.bool).triu(1)
    mask = torch.zeros(window, window, device=ids.device).masked_fill(later, -1e9)[None, None]
    places = torch.arange(window, device=ids.device)[None]
    return text_encoder(input_ids=ids, attention_mask={"full_attention": mask, "sliding_attention": mask},
                        position_ids=places, use_cache=False).last_hidden_state


class Hints(torch.nn.Module):
    """What else training asks: each slot of the caption from the mean of its text states. One linear head for all
    slots, thrown away afterwards."""

    def __init__(self, width):
        super().__init__()
        self.sizes = [len(table) for table in scenes.TABLES]
        self.head = torch.nn.Linear(width, sum(self.sizes))

    def loss(self, states, mask, labels, named):
        """Mean cross entropy over the slots of the captions that are not empty."""
        share = mask.float() / mask.float().sum(1, keepdim=True)
        guesses = self.head((states.float() * share[:, :, None]).sum(1)).split(self.sizes, dim=1)
        told = sum(functional.cross_entropy(guess, labels[:, slot], reduction="none")
                   for slot, guess in enumerate(guesses)) / len(guesses)
        return (told * named).mean()


class Learner:
    """Text encoder and velocity predictor with their optimiser and averaged weights."""

    def __init__(self, args, device):
        self.text_encoder = nets.make_text_encoder(args.preset).to(device)
        self.transformer = nets.make_transformer(args.preset).to(device)
        self.both = torch.nn.ModuleList([self.text_encoder, self.transformer])
        self.hints = Hints(self.text_encoder.config.hidden_size).to(device)
        self.average = Average(self.both, device)
        self.parameters = [*self.both.parameters(), *self.hints.parameters()]
        self.optimiser = make_optimiser(self.parameters, args.rate, device, decay=0.01)
        self.step, self.spent = 0, 0.0

    def state(self, spent):
        """Everything that going on needs."""
        return {"both": self.both.state_dict(), "average": self.average.net.state_dict(),
                "hints": self.hints.state_dict(), "optimiser": self.optimiser.state_dict(), "step": self.step,
                "spent": spent}

    def load(self, state):
        """Go on from a state."""
        self.both.load_state_dict(state["both"])
        self.average.net.load_state_dict(state["average"])
        self.hints.load_state_dict(state["hints"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.spent = state["step"], state["spent"]


def noise_levels(count, device):
    """Noise levels [count], one from each of equal ranges and then shifted, and the timesteps that the sampler would
    tell for them."""
    even = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
    levels = nets.shifted(even)
    return levels, (levels * 1000.0).floor().clamp(max=999.0)


def train_joint(args, device):
    """Phase joint: text encoder and velocity predictor on stored pictures."""
    path = args.work / "joint.pt"
    learner = Learner(args, device)
    if path.exists():
        learner.load(torch.load(path, map_location=device, weights_only=True))
    store = load_store(args, device)
    pool = store.pool
    torch.manual_seed(args.seed * 1_000_003 + learner.step)
    clock, saved, mean = Clock(learner.spent, args), time.monotonic(), None
    fifths = torch.arange(args.batch, device=device) * 5 // args.batch

    def once():
        rows = torch.randint(len(store.numbers), (args.batch,), device=device)
        clean, numbers = store.latents[rows].float(), store.numbers[rows]
        named = torch.rand(args.batch, device=device) >= EMPTY_SHARE
        ids = torch.where(named[:, None], pool.captions[numbers, pool.wording(args.batch)], pool.empty)
        mask = ids != vocabulary_gemma.PAD
        levels, timesteps = noise_levels(args.batch, device)
        noise = torch.randn_like(clean)
        level = levels.view(-1, 1, 1, 1)
        with autocast(device):
            states = text_states(learner.text_encoder, ids)
            guess = learner.transformer((1.0 - level) * clean + level * noise, encoder_hidden_states=states,
                                        encoder_attention_mask=mask, timestep=timesteps, return_dict=False)[0]
        losses = (guess.float() - (noise - clean)).square().mean((1, 2, 3))
        told = learner.hints.loss(states, mask, pool.labels[numbers], named)
        learner.optimiser.zero_grad(set_to_none=True)
        (losses.mean() + HINT_WEIGHT * told).backward()
        descend(learner.optimiser, learner.parameters)
        learner.average.follow()
        binned = torch.zeros(5, device=device).index_add(0, fifths, losses.detach()) * 5.0 / args.batch
        return torch.cat([binned, told.detach()[None]])

    repeated = Repeated(once, device, args.graph)
    while not clock.over():
        if args.refresh and learner.step % args.refresh_every == 0:
            store.refresh(args.refresh)
        set_rate(learner.optimiser, learning_rate(args.rate, learner.step, clock.share(), args.warm_up))
        learner.average.set_share(learner.step, args.horizon)
        figures = repeated()
        learner.step += 1
        if learner.step % args.log_every == 0:
            now = figures.cpu()
            mean = now if mean is None else 0.8 * mean + 0.2 * now
            print(f"joint {learner.step} loss {mean[:5].mean():.4f} by noise "
                  f"{' '.join(f'{value:.4f}' for value in mean[:5])} hints {mean[5]:.4f} {clock.spent():.0f} s",
                  flush=True)
        if time.monotonic() - saved > args.save_every:
            save(path, learner.state(clock.spent()))
            saved = time.monotonic()
    save(path, learner.state(clock.spent()))
    print(f"joint: {learner.step} steps of {args.batch} pictures in {clock.spent():.0f} s", flush=True)


def load_joint(args, device):
    """(text encoder, transformer, state): the averaged weights of phase joint."""
    state = torch.load(args.work / "joint.pt", map_location=device, weights_only=True)
    both = torch.nn.ModuleList([nets.make_text_encoder(args.preset), nets.make_transformer(args.preset)]).to(device)
    both.load_state_dict(state["average"])
    both.eval().requires_grad_(False)
    return both[0], both[1], state


# ---- sprint and export ----------------------------------------------------------------------------------------------

def train_sprint(args, device):
    """Phase sprint: the two-step network, from the averaged weights of phase joint."""
    text_encoder, transformer, _ = load_joint(args, device)
    sprint.train(args, device, Pool(device), lambda ids: text_states(text_encoder, ids), transformer)


def write_models(args, device):
    """Phase export: averaged weights as model folders; --folder alone, or --sprint-folder beside it."""
    del device
    text_encoder, transformer, state = load_joint(args, "cpu")
    scores = json.loads(args.scores.read_text()) if args.scores else {}
    training = f"{args.note} Trained for {state['step']:,} steps in {state['spent'] / 60:.0f} minutes.".strip()
    vae = load_vae(args, "cpu")
    card = model_card_sana.card(vae, text_encoder, transformer, training, scores)
    export_sana.write_folder(args.folder, vae, text_encoder, transformer, card)
    print(f"export: {args.folder}, trained for {state['step']} steps", flush=True)
    if args.sprint_folder:
        fast, state = sprint.load(args, "cpu")
        scores = json.loads(args.sprint_scores.read_text()) if args.sprint_scores else {}
        training = f"{args.note} Distilled in {state['step']:,} steps, {state['spent'] / 60:.0f} minutes.".strip()
        card = model_card_sana.sprint_card(fast, args.folder.name, training, scores)
        export_sana.write_sprint_folder(args.sprint_folder, args.folder, fast, card)
        print(f"export: {args.sprint_folder}, trained for {state['step']} steps", flush=True)


PHASES = {"vae": train_vae, "latents": make_latents, "joint": train_joint, "sprint": train_sprint,
          "export": write_models}


def parse(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("phases", nargs="+", choices=sorted(PHASES), help="in the order in which they are run")
    parser.add_argument("--preset", choices=sorted(nets.PRESETS), default="full", help="sizes of the networks")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder of the state files")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0: torch's choice")
    parser.add_argument("--seed", type=int, default=1, help="of everything random")
    parser.add_argument("--seconds", type=float, nargs="+", default=[120],
                        help="budget of each phase over all its calls; latents and export take theirs and ignore it")
    parser.add_argument("--stop-after", type=float, default=0, help="end this call after so many seconds, 0: never")
    parser.add_argument("--save-every", type=float, default=60, help="seconds between two state files")
    parser.add_argument("--log-every", type=int, default=200, help="steps between two measurements of the loss")
    parser.add_argument("--no-graph", dest="graph", action="store_false", help="do not use CUDA graphs")
    parser.add_argument("--batch", type=int, help="pictures a step: 32 (vae), 256 (joint), 512 (sprint) unless given")
    parser.add_argument("--rate", type=float, help="peak learning rate: 1e-3, sprint 5e-4 unless given")
    parser.add_argument("--warm-up", type=int, default=200, help="steps until the learning rate is at its peak")
    parser.add_argument("--horizon", type=float, default=1000,
                        help="joint, sprint: steps that the averaged weights reach back")
    parser.add_argument("--pictures", type=int, default=65536, help="latents: pictures in the store")
    parser.add_argument("--chunk", type=int, default=256, help="latents: pictures encoded at a time")
    parser.add_argument("--refresh", type=int, default=256, help="joint: pictures drawn anew at a time, 0: none")
    parser.add_argument("--refresh-every", type=int, default=25, help="joint: steps between two refreshes")
    parser.add_argument("--pairs", type=int, default=16384, help="sprint: pairs in the store")
    parser.add_argument("--pairs-chunk", type=int, default=1024, help="sprint: pairs made at a time")
    parser.add_argument("--pairs-every", type=int, default=16, help="sprint: steps between two chunks")
    parser.add_argument("--teacher-steps", type=int, default=16, help="sprint: steps of the teacher from pure noise")
    parser.add_argument("--folder", type=pathlib.Path, help="export: the model folder to write")
    parser.add_argument("--sprint-folder", type=pathlib.Path, help="export: also write that of the two-step model")
    parser.add_argument("--note", default="", help="export: sentences for the model cards, on how they were trained")
    parser.add_argument("--scores", type=pathlib.Path, help="export: what sample_sana.py wrote, for the model card")
    parser.add_argument("--sprint-scores", type=pathlib.Path, help="export: the same of the two-step model")
    args = parser.parse_args(arguments)
    if "export" in args.phases and not args.folder:
        parser.error("export needs --folder")
    if len(args.seconds) not in (1, len(args.phases)):
        parser.error(f"--seconds has {len(args.seconds)} numbers for {len(args.phases)} phases")
    return args


def arguments_of(args, number):
    """The arguments as the phase with that number takes them."""
    phase, own = args.phases[number], copy.copy(args)
    own.seconds = args.seconds[number if len(args.seconds) > 1 else 0]
    own.batch = args.batch or {"joint": 256, "sprint": 512}.get(phase, 32)
    own.rate = args.rate or (5e-4 if phase == "sprint" else 1e-3)
    return own


def main():
    """Run the phases."""
    args = parse()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True   # the shapes of a phase hardly change
    for number, phase in enumerate(args.phases):
        PHASES[phase](arguments_of(args, number), args.device)


if __name__ == "__main__":
    main()
