"""The rows of weir-bench in PyTorch with diffusers and transformers, on the same device in the same run.

    torch_rows.py [--weir FILE]... [--row NAME]... [--wait SECONDS] [--out FILE]

Random weights at the real architectures: bf16, but fp16 for UNet3D and KL, as their users run them. Two ways: eager, and
torch.compile in its default mode with dynamic=False. Every compiled row is a process of its own, so that they are compiled
side by side; timing begins when all are ready (or after --wait seconds with those that are) and is one row at a time:
median and p90 of the calls between events, after three calls.

--weir names what `weir-bench --json` printed; the table then has Weir's figures beside them. Prints a Markdown table, and
writes one JSON line a row to --out.
"""
import argparse, json, os, subprocess, sys, threading, time

BF, HF = "bfloat16", "float16"
SANA = dict(in_channels=32, out_channels=32, num_attention_heads=70, attention_head_dim=32, num_layers=20,
            num_cross_attention_heads=20, cross_attention_head_dim=112, cross_attention_dim=2240,
            caption_channels=2304, mlp_ratio=2.5, sample_size=32, patch_size=1, norm_eps=1e-6)
DC_SIDE = dict(block_types=("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
               block_out_channels=(128, 256, 512, 512, 1024, 1024), qkv_multiscales=((), (), (), (5,), (5,), (5,)))
DC = dict(latent_channels=32, encoder_layers_per_block=(2, 2, 2, 3, 3, 3), decoder_layers_per_block=(3,) * 6,
          downsample_block_type="conv", upsample_block_type="interpolate", decoder_norm_types="rms_norm",
          decoder_act_fns="silu", scaling_factor=0.41407,
          **{f"{half}_{k}": v for half in ("encoder", "decoder") for k, v in DC_SIDE.items()})
KL = dict(in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 4,
          up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(128, 256, 512, 512), layers_per_block=2,
          latent_channels=4, norm_num_groups=32, sample_size=256)
GEMMA = dict(vocab_size=256000, hidden_size=2304, intermediate_size=9216, num_hidden_layers=26, num_attention_heads=8,
             num_key_value_heads=4, head_dim=256, query_pre_attn_scalar=256, sliding_window=4096)


def build(cls, dtype, *args, **config):
    import torch
    with torch.device("cuda"):
        torch.set_default_dtype(dtype)
        model = cls(*args, **config)
        torch.set_default_dtype(torch.float32)
    return model.to(dtype).eval().requires_grad_(False)


def make_sana(dtype, px, rows, guided=False, **more):
    import torch
    from diffusers import SanaTransformer2DModel
    model = build(SanaTransformer2DModel, dtype, **{**SANA, **more})
    side, made = px // 32, dict(device="cuda", dtype=dtype)
    call = dict(hidden_states=torch.randn(rows, 32, side, side, **made),
                encoder_hidden_states=torch.randn(rows, 300, 2304, **made),
                encoder_attention_mask=torch.ones(rows, 300, **made), timestep=torch.full((rows,), 500.0, **made),
                return_dict=False)
    if guided:
        call["guidance"] = torch.full((rows,), 0.45, **made)
    return model, call


def make_dc(dtype, rows):
    import torch
    from diffusers import AutoencoderDC
    return build(AutoencoderDC, dtype, **DC).decoder, dict(
        hidden_states=torch.randn(rows, 32, 32, 32, device="cuda", dtype=dtype))


def make_gemma(dtype):
    import torch
    from transformers import Gemma2Config, Gemma2Model
    ids = torch.randint(3, 250000, (1, 500), device="cuda")
    return build(Gemma2Model, dtype, Gemma2Config(**GEMMA)), dict(
        input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)


def make_unet(dtype, frames, height, width):
    import torch
    from diffusers import UNet3DConditionModel
    made = dict(device="cuda", dtype=dtype)
    return build(UNet3DConditionModel, dtype, sample_size=32), dict(
        sample=torch.randn(2, 4, frames, height, width, **made), timestep=torch.tensor(500, device="cuda"),
        encoder_hidden_states=torch.randn(2, 77, 1024, **made), return_dict=False)


def make_kl(dtype):
    import torch
    from diffusers import AutoencoderKL
    return build(AutoencoderKL, dtype, **KL).decoder, dict(
        sample=torch.randn(16, 4, 32, 32, device="cuda", dtype=dtype))


ROWS = {
    "sana-1024-2": (BF, make_sana, dict(px=1024, rows=2)),
    "sana-1024-8": (BF, make_sana, dict(px=1024, rows=8)),
    "sana-1024-32": (BF, make_sana, dict(px=1024, rows=32)),
    "sana-4096-2": (BF, make_sana, dict(px=4096, rows=2, sample_size=128, interpolation_scale=2)),
    "sprint-1024-1": (BF, make_sana, dict(px=1024, rows=1, guided=True, qk_norm="rms_norm_across_heads",
                                          guidance_embeds=True)),
    "dcae-1024-1": (BF, make_dc, dict(rows=1)),
    "dcae-1024-4": (BF, make_dc, dict(rows=4)),
    "gemma-500": (BF, make_gemma, {}),
    "unet-16x256-2": (HF, make_unet, dict(frames=16, height=32, width=32)),
    "unet-24x320x576-2": (HF, make_unet, dict(frames=24, height=40, width=72)),
    "kl-16x256": (HF, make_kl, {}),
}


def work(rows, compiled):
    """In a process of its own: makes ready, says so, waits for a line, measures."""
    import torch
    ready = {}
    with torch.no_grad():
        for row in rows:
            dtype, make, arguments = ROWS[row]
            try:
                model, call = make(getattr(torch, dtype), **arguments)
                run = torch.compile(model, dynamic=False) if compiled else model
                for _ in range(3):
                    run(**call)
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
                ready[row] = (run, call)
            except Exception as error:
                print(json.dumps(dict(row=row, error=repr(error)[:200])), flush=True)
        print("ready", flush=True)
        sys.stdin.readline()
        for row, (run, call) in ready.items():
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(13)]
            for _ in range(2):
                run(**call)
            for mark in marks:
                mark.record()
                run(**call)
            torch.cuda.synchronize()
            ms = sorted(a.elapsed_time(b) for a, b in zip(marks, marks[1:]))
            print(json.dumps(dict(row=row, precision="bf16" if ROWS[row][0] == BF else "fp16",
                                  mode="compile" if compiled else "eager", median_ms=round(ms[len(ms) // 2], 3),
                                  p90_ms=round(ms[len(ms) * 9 // 10], 3))), flush=True)
    print("done", flush=True)


class Child:
    def __init__(self, rows, compiled, threads=2):
        mode = "compile" if compiled else "eager"
        self.name, self.results, self.ready, self.done = f"{mode} {' '.join(rows)}", [], threading.Event(), threading.Event()
        self.begin = time.monotonic()
        environment = dict(os.environ, TORCHINDUCTOR_COMPILE_THREADS=str(threads), OMP_NUM_THREADS="2")
        self.process = subprocess.Popen([sys.executable, __file__, "--work", mode, *rows], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                self.results.append(json.loads(line))
            elif line.startswith("ready"):
                print(f"torch_rows: {self.name}: ready after {time.monotonic() - self.begin:.0f} s", file=sys.stderr)
                self.ready.set()
        self.ready.set()
        self.done.set()

    def measure(self):
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        except OSError:
            pass
        self.done.wait(60)


def measure_all(rows, wait_s):
    threads = max(2, (os.cpu_count() or 2) // len(rows))  # of each compilation
    children = [Child([row], True, threads) for row in rows] + [Child(rows, False)]
    end = time.monotonic() + wait_s
    for child in children:
        child.ready.wait(max(0.0, end - time.monotonic()))
    late = [child for child in children if not child.ready.is_set()]
    for child in late:
        print(f"torch_rows: not ready after {wait_s} s: {child.name}", file=sys.stderr)
        child.process.kill()
        child.process.wait()
    for child in children:
        if child not in late:
            child.measure()
    for child in children:
        child.process.kill()
    return [result for child in children for result in child.results]


def table(weir, torch_rows):
    lines = ["| row | rows | Weir ms | p90 | wanted | TFLOP/s | of product | GB/s | of copy | GiB | PyTorch eager ms "
             "| compiled ms | Weir against eager | against compiled |", "|" + "---|" * 14]
    for w in weir:
        of = {r["mode"]: r for r in torch_rows if r["row"] == w["row"] and "mode" in r}
        ms = [of[m]["median_ms"] if m in of else None for m in ("eager", "compile")]
        shown = [f"{x:.2f}" if x else "–" for x in ms]
        ratio = [f"{x / w['median_ms']:.2f} ×" if x else "–" for x in ms]
        wanted = f"{w['limit_ms']:g}" if w["limit_ms"] else "–"
        lines.append(f"| {w['work']}{'' if w['precision'] == 'bf16' else ', ' + w['precision']} | {w['rows']} "
                     f"| {w['median_ms']:.2f} | {w['p90_ms']:.2f} | {wanted} | {w['tflop_s']:.0f} "
                     f"| {100 * w['of_product']:.0f} % | {w['gb_s']:.0f} | {100 * w['of_copy']:.0f} % "
                     f"| {w['memory_gib']:.1f} | {shown[0]} | {shown[1]} | {ratio[0]} | {ratio[1]} |")
    return "\n".join(lines)


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--work":
        return work(sys.argv[3:], sys.argv[2] == "compile")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", action="append", default=[])
    parser.add_argument("--torch", help="what --out wrote before: nothing is measured")
    parser.add_argument("--row", action="append", choices=ROWS)
    parser.add_argument("--wait", type=float, default=600)
    parser.add_argument("--out")
    given = parser.parse_args()
    if given.torch:
        found = [json.loads(line) for line in open(given.torch) if line.strip()]
    else:
        found = measure_all(given.row or list(ROWS), given.wait)
    if given.out:
        with open(given.out, "w") as out:
            out.writelines(json.dumps(r) + "\n" for r in found)
    weir = [json.loads(line) for file in given.weir for line in open(file) if line.startswith("{")]
    print(table(weir, found) if weir else "\n".join(json.dumps(r) for r in found))


if __name__ == "__main__":
    main()
