"""Distils the velocity predictor into one that needs two steps and no second evaluation for guidance (Sana-Sprint).

The pipeline's two steps are always the same: from pure noise (angle 1.5708) to a picture, then from that picture with
fresh noise at angle 1.3 to the final one. In noise levels of the flow these are 1 and 0.7827, and the network's inputs
and outputs are the same noisy latent and velocity that the teacher knows. So two functions have to be learned, each of
a fixed noise level: where does the teacher, guided and in many steps, arrive from here? Both are deterministic, so
squared errors to the teacher's answers suffice; a consistency model, which learns all angles from its own answers,
would take longer and has more ways to fail.

- The student begins with the teacher's weights. Its time embedding is fitted to the teacher's by least squares, since
  Sprint tells the noise level in 0..1 where Sana tells 0..1000; its guidance embedding begins at zero.
- The second step's inputs are made from what the student itself answers at the first, so that it learns to mend its own
  faults. They are made anew all the time, as the student changes.
- Guidance is GUIDANCE for half of the pairs and anything else in GUIDANCES for the others, so that the embedding means
  something.
"""
import math
import time

import torch

import nets_sana as nets
import vocabulary_gemma
from phases import Average, Clock, Repeated, autocast, descend, learning_rate, make_optimiser, save, set_rate

GUIDANCES = (2.0, 7.0)
SECOND_WEIGHT = 4.0         # of the second step's squared errors, which are the smaller ones
FIRST_LEVEL = 0.99967       # where the teacher begins, as its sampler does: at 1 a picture's share of it would be 0


def load(args, device):
    """(transformer, state): the averaged weights of phase sprint."""
    state = torch.load(args.work / "sprint.pt", map_location=device, weights_only=True)
    net = nets.make_transformer(args.preset, sprint=True).to(device)
    net.load_state_dict(state["average"])
    return net.eval().requires_grad_(False), state


@torch.no_grad()
def start_from(student, teacher):
    """Give the student the teacher's weights, and embeddings that say the same."""
    mine, theirs = student.time_embed, teacher.time_embed.emb
    weights = {key: value for key, value in teacher.state_dict().items() if not key.startswith("time_embed.emb.")}
    left = student.load_state_dict(weights, strict=False)
    if left.unexpected_keys or not all("_embedder." in key for key in left.missing_keys):
        raise ValueError(f"the student lacks {left.missing_keys} and has no {left.unexpected_keys}")
    for part in (mine.guidance_embedder.linear_2.weight, mine.guidance_embedder.linear_2.bias):
        part.zero_()
    levels = torch.cat([torch.linspace(0.0, 1.0, 257), torch.tensor(nets.SHARES).repeat_interleave(128)])
    levels = levels.to(next(student.parameters()).device)
    wanted = theirs.timestep_embedder(theirs.time_proj((levels * 1000.0).clamp(max=999.0)))
    hidden = torch.nn.functional.silu(mine.timestep_embedder.linear_1(mine.time_proj(levels)))
    known = torch.cat([hidden, torch.ones_like(hidden[:, :1])], 1).double()
    ridge = 1e-4 * torch.eye(known.shape[1], device=known.device, dtype=known.dtype)
    fitted = torch.linalg.solve(known.T @ known + ridge, known.T @ wanted.double()).float()
    mine.timestep_embedder.linear_2.weight.copy_(fitted[:-1].T)
    mine.timestep_embedder.linear_2.bias.copy_(fitted[-1])


def levels_between(first, steps):
    """Noise levels from `first` to 0, evenly spaced before the shift, steps + 1 of them."""
    even = first / (nets.SHIFT - (nets.SHIFT - 1.0) * first)        # what the shift makes `first` of
    return [nets.shifted(even * (steps - index) / steps) for index in range(steps + 1)]


def solve(velocity, noisy, levels):
    """Follow the flow from noisy latents at levels[0] down to 0 with DPM-Solver++ of order 2 (midpoint)."""
    before = span_before = None
    for here, there in zip(levels, levels[1:]):
        clean = noisy - here * velocity(noisy, here)
        if there == 0.0:
            return clean
        span = math.log((1.0 - there) / there) - math.log((1.0 - here) / here)
        towards = clean
        if before is not None:
            towards = clean + (clean - before) * (0.5 * span / span_before)
        noisy = (there / here) * noisy + (1.0 - there) * (1.0 - math.exp(-span)) * towards
        before, span_before = clean, span
    raise ValueError("the last level must be 0")


class Pairs:
    """What the student learns from: captions, guidances, and for each of the two steps an input and the teacher's
    answer, on the device. Old ones are replaced by new ones."""

    def __init__(self, args, device, pool, states, teacher, student):
        self.args, self.device, self.pool, self.states = args, device, pool, states
        self.teacher, self.student = teacher, student
        shape = (args.pairs, nets.CHANNELS, nets.LATENT, nets.LATENT)
        self.captions = torch.zeros(args.pairs, 2, dtype=torch.long, device=device)
        self.guidance = torch.zeros(args.pairs, device=device)
        self.inputs = [torch.zeros(shape, dtype=torch.float16, device=device) for _ in nets.SHARES]
        self.answers = [torch.zeros(shape, dtype=torch.float16, device=device) for _ in nets.SHARES]
        self.make = Repeated(self.some, device, args.graph)
        self.next = 0

    def condition(self, captions):
        """(states [N, TRAIN_WINDOW, width], mask) of captions given as [N, 2]: scene and wording."""
        return (self.states[captions[:, 0], captions[:, 1]].float(),
                self.pool.captions[captions[:, 0], captions[:, 1]] != vocabulary_gemma.PAD)

    @torch.no_grad()
    def some(self):
        """A chunk of new pairs, in the order of the store's fields."""
        count, device = self.args.pairs_chunk, self.device
        captions = torch.stack([self.pool.draw(count), self.pool.wording(count)], 1)
        other = GUIDANCES[0] + (GUIDANCES[1] - GUIDANCES[0]) * torch.rand(count, device=device)
        guidance = other + (nets.GUIDANCE - other) * (torch.rand(count, device=device) < 0.5)
        states, mask = self.condition(captions)
        empty = self.pool.empty != vocabulary_gemma.PAD
        both = torch.cat([self.empty_states.expand_as(states), states])
        both_masks = torch.cat([empty.expand_as(mask), mask])
        scale = guidance.view(-1, 1, 1, 1)

        def velocity(noisy, level):
            timestep = torch.full((2 * count,), math.floor(level * 1000.0), device=device, dtype=torch.float32)
            with autocast(device):
                out = self.teacher(torch.cat([noisy, noisy]), encoder_hidden_states=both,
                                   encoder_attention_mask=both_masks, timestep=timestep, return_dict=False)[0]
            without, told = out.float().chunk(2)
            return without + scale * (told - without)

        shape = (count, nets.CHANNELS, nets.LATENT, nets.LATENT)
        noise = torch.randn(shape, device=device)
        first = solve(velocity, noise, levels_between(FIRST_LEVEL, self.args.teacher_steps))
        level = nets.SHARES[1]
        own = guess_clean(self.student, noise, states, mask, guidance,
                          torch.full((count,), nets.SHARES[0], device=device))
        mixed = (1.0 - level) * own + level * torch.randn(shape, device=device)
        second = solve(velocity, mixed, levels_between(level, max(2, self.args.teacher_steps * 5 // 8)))
        return captions, guidance, noise.half(), first.half(), mixed.half(), second.half()

    def refresh(self):
        """Replace the oldest chunk."""
        count = min(self.args.pairs_chunk, len(self.guidance))
        where = (self.next + torch.arange(count, device=self.device)) % len(self.guidance)
        fields = (self.captions, self.guidance, self.inputs[0], self.answers[0], self.inputs[1], self.answers[1])
        for field, new in zip(fields, self.make()):
            field[where] = new[:count]
        self.next = (self.next + count) % len(self.guidance)

    def fill(self):
        """Make all pairs anew."""
        for _ in range(0, len(self.guidance), self.args.pairs_chunk):
            self.refresh()


def guess_clean(net, noisy, states, mask, guidance, levels):
    """The student's latents without noise: one evaluation at noise levels [N]."""
    with autocast(noisy.device.type):
        out = net(noisy, encoder_hidden_states=states, encoder_attention_mask=mask, timestep=levels,
                  guidance=guidance * net.config.guidance_embeds_scale, return_dict=False)[0]
    return noisy - levels.view(-1, 1, 1, 1) * out.float()


@torch.no_grad()
def caption_states(pool, encode, chunk=1024):
    """The text states of every wording of every caption, f16 [scenes, wordings, TRAIN_WINDOW, width]."""
    flat = pool.captions.flatten(0, 1)
    states = torch.cat([encode(part).half() for part in flat.split(chunk)])
    return states.unflatten(0, pool.captions.shape[:2])


def train(args, device, pool, encode, teacher):
    """Phase sprint. `encode` gives the text states of ids; the teacher is the averaged velocity predictor."""
    path = args.work / "sprint.pt"
    student = nets.make_transformer(args.preset, sprint=True).to(device)
    start_from(student, teacher)
    parameters = list(student.parameters())
    average = Average(student, device)
    optimiser = make_optimiser(parameters, args.rate, device)
    step, spent = 0, 0.0
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        student.load_state_dict(state["student"])
        average.net.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    clock, saved, mean = Clock(spent, args), time.monotonic(), None
    torch.manual_seed(args.seed * 1_000_003 + step)
    pairs = Pairs(args, device, pool, caption_states(pool, encode), teacher, average.net)
    with torch.no_grad():
        pairs.empty_states = encode(pool.empty[None]).float()
    pairs.fill()
    half = args.batch // 2
    levels = torch.tensor(nets.SHARES, device=device).repeat_interleave(half)
    weights = torch.tensor([1.0, SECOND_WEIGHT], device=device).repeat_interleave(half)

    def once():
        rows = torch.randint(len(pairs.guidance), (2 * half,), device=device)
        noisy = torch.cat([pairs.inputs[0][rows[:half]], pairs.inputs[1][rows[half:]]]).float()
        answer = torch.cat([pairs.answers[0][rows[:half]], pairs.answers[1][rows[half:]]]).float()
        states, mask = pairs.condition(pairs.captions[rows])
        guess = guess_clean(student, noisy, states, mask, pairs.guidance[rows], levels)
        losses = (guess - answer).square().mean((1, 2, 3))
        optimiser.zero_grad(set_to_none=True)
        (losses * weights).mean().backward()
        descend(optimiser, parameters)
        average.follow()
        return torch.stack([losses[:half].detach().mean(), losses[half:].detach().mean()])

    def keep():
        save(path, {"student": student.state_dict(), "average": average.net.state_dict(),
                    "optimiser": optimiser.state_dict(), "step": step, "spent": clock.spent()})

    repeated = Repeated(once, device, args.graph)
    while not clock.over():
        if step % args.pairs_every == args.pairs_every - 1:
            pairs.refresh()
        set_rate(optimiser, learning_rate(args.rate, step, clock.share(), args.warm_up))
        average.set_share(step, args.horizon)
        figures = repeated()
        step += 1
        if step % args.log_every == 0:
            now = figures.cpu()
            mean = now if mean is None else 0.8 * mean + 0.2 * now
            print(f"sprint {step} loss of the steps {mean[0]:.4f} {mean[1]:.4f} {clock.spent():.0f} s", flush=True)
        if time.monotonic() - saved > args.save_every:
            keep()
            saved = time.monotonic()
    keep()
    print(f"sprint: {step} steps of {2 * half} pictures in {clock.spent():.0f} s", flush=True)
