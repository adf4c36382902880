"""The scheduler configs that are compared with diffusers, and diffusers' answer for one of them."""
import contextlib
import warnings
from unittest import mock

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, SCMScheduler

warnings.filterwarnings("ignore")
CLASSES = {"ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler, "flow-dpm++": DPMSolverMultistepScheduler,
           "flow-euler": FlowMatchEulerDiscreteScheduler, "scm": SCMScheduler}
STEPS = [1, 2, 4, 14, 15, 25, 50]
STEPS_FLOW = [1, 2, 3, 14, 15, 20]
STEPS_SCM = [1, 2, 3, 4, 8]

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
DDIM = {"_class_name": "DDIMScheduler"}
DPM = {"_class_name": "DPMSolverMultistepScheduler"}
FLOW = {**DPM, "prediction_type": "flow_prediction", "use_flow_sigmas": True}
EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
SCM = {"_class_name": "SCMScheduler", "prediction_type": "trigflow", "sigma_data": 0.5}
# name: (the file, the kind asked for or None)
CONFIGS = {
    "ddim_ms17b": ({**DDIM, **SD, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}, None),
    "ddim_defaults": ({**DDIM}, None),
    "ddim_clip_range": ({**DDIM, **SD, "clip_sample_range": 0.5, "timestep_spacing": "trailing"}, None),
    "ddim_v_zero_snr": ({**DDIM, **SD, "clip_sample": False, "prediction_type": "v_prediction",
                         "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, None),
    "ddim_sample_linspace": ({**DDIM, "clip_sample": False, "prediction_type": "sample", "timestep_spacing": "linspace",
                              "beta_schedule": "squaredcos_cap_v2"}, None),
    "dpm_defaults": ({**DPM, "lambda_min_clipped": -float("inf")}, None),
    "dpm_heun_v": ({**DPM, **SD, "solver_type": "heun", "prediction_type": "v_prediction",
                    "timestep_spacing": "leading", "steps_offset": 1}, None),
    "dpm_first_order": ({**DPM, **SD, "solver_order": 1, "prediction_type": "sample"}, None),
    "dpm_sigma_min": ({**DPM, **SD, "final_sigmas_type": "sigma_min", "euler_at_final": True}, None),
    "dpm_sigma_min_second": ({**DPM, **SD, "final_sigmas_type": "sigma_min", "lower_order_final": False,
                              "solver_type": "heun"}, None),
    "dpm_karras": ({**DPM, **SD, "use_karras_sigmas": True}, None),
    "dpm_karras_cosine": ({**DPM, "beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True,
                           "prediction_type": "v_prediction"}, None),
    "dpm_cosine_clipped": ({**DPM, "beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1,
                            "timestep_spacing": "trailing"}, None),
    "dpm_zero_snr": ({**DPM, **SD, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True,
                      "timestep_spacing": "trailing"}, None),
    "dpm_from_ddim": ({**DDIM, **SD, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}, "dpm++"),
    "dpm_from_ddim_leading": ({**DDIM, **SD, "steps_offset": 1, "timestep_spacing": "leading"}, "dpm++"),
    "ddim_from_dpm": ({**DPM, **SD, "solver_order": 2, "final_sigmas_type": "zero"}, "ddim"),
    "flow_dpm_sana": ({**FLOW, "flow_shift": 3.0, "lambda_min_clipped": -float("inf"), "solver_order": 2}, None),
    "flow_dpm_sana_video": ({**FLOW, "flow_shift": 8.0}, None),
    "flow_dpm_heun": ({**FLOW, "flow_shift": 1, "solver_type": "heun", "timestep_spacing": "trailing"}, None),
    "flow_dpm_first_order": ({**FLOW, "flow_shift": 3.0, "solver_order": 1}, None),
    "flow_dpm_sigma_min": ({**FLOW, "flow_shift": 8.0, "final_sigmas_type": "sigma_min", "lower_order_final": False,
                            "solver_type": "heun"}, None),
    "flow_dpm_euler_at_final": ({**FLOW, "final_sigmas_type": "sigma_min", "euler_at_final": True}, None),
    "flow_dpm_epsilon": ({**DPM, "use_flow_sigmas": True, "flow_shift": 2.5, "num_train_timesteps": 500}, None),
    "flow_dpm_from_euler": ({**EULER, "shift": 3.0}, "flow-dpm++"),
    "flow_euler_defaults": ({**EULER}, None),
    "flow_euler_sana": ({**EULER, "shift": 3.0}, None),
    "flow_euler_video": ({**EULER, "shift": 8.0, "num_train_timesteps": 1000}, None),
    "flow_euler_from_dpm": ({**FLOW, "flow_shift": 3.0}, "flow-euler"),
    "scm_sprint": ({**SCM}, None),
    "scm_quarter": ({**SCM, "sigma_data": 0.25}, None),
}


def kind_of(config, kind):
    if kind or config["_class_name"] != DPM["_class_name"]:
        return kind or {c.__name__: k for k, c in CLASSES.items()}[config["_class_name"]]
    return "flow-dpm++" if config.get("use_flow_sigmas") else "dpm++"


def steps_of(config, kind):
    name = kind_of(config, kind)
    return STEPS_SCM if name == "scm" else STEPS_FLOW if name.startswith("flow") else STEPS


def scheduler(config, kind):
    """What diffusers makes of the file, and with a kind, of Class.from_config(scheduler.config)."""
    own = {c.__name__: c for c in CLASSES.values()}[config["_class_name"]].from_config(config)
    said = {}
    if kind == "flow-dpm++":
        said = {"use_flow_sigmas": True, "prediction_type": config.get("prediction_type", "flow_prediction"),
                "flow_shift": config.get("flow_shift", config.get("shift", 1.0))}
    if kind == "flow-euler":
        said = {"shift": config.get("shift", config.get("flow_shift", 1.0))}
    return CLASSES[kind].from_config(own.config, **said) if kind else own


@contextlib.contextmanager
def rounded_functions():
    """torch's vector library rounds log, exp, sin, cos and even sqrt of f32 otherwise from one machine to the next.
    Within, they are rounded from double, as ours are: what is then left apart is our own."""
    power = torch.Tensor.__pow__

    def rounded(function):
        return lambda x: function(x.double()).to(x.dtype)

    def pow_rounded(x, exponent):
        return torch.sqrt(x) if exponent == 0.5 else power(x, exponent)

    with contextlib.ExitStack() as stack:
        for name in ("log", "exp", "sin", "cos", "sqrt"):
            stack.enter_context(mock.patch.object(torch, name, rounded(getattr(torch.Tensor, name))))
        stack.enter_context(mock.patch.object(torch.Tensor, "__pow__", pow_rounded))
        stack.enter_context(mock.patch.object(torch.Tensor, "sqrt", rounded(torch.Tensor.sqrt)))
        yield


def set_timesteps(s, steps):
    """As the pipelines do; returns what the network is given: for scm what Sprint's pipeline makes of the angles."""
    if not isinstance(s, SCMScheduler):
        s.set_timesteps(steps)
        return s.timesteps
    s.set_timesteps(steps, max_timesteps=1.57080, intermediate_timesteps=1.3 if steps == 2 else None)
    return torch.cat([tau_of(t.expand(1)) for t in s.timesteps[:-1]])


def tau_of(angle):
    return torch.sin(angle) / (torch.cos(angle) + torch.sin(angle))


def run(config, kind, steps, n):
    """What the network is given, and x after each step, where the network is m = 0.5 x + 0.125 and x starts as
    randn(n) of seed = steps."""
    s = scheduler(config, kind)
    given = set_timesteps(s, steps)
    generator = torch.Generator("cpu").manual_seed(steps)
    x = torch.randn(n, generator=generator)
    rows = run_sprint(s, x, generator) if isinstance(s, SCMScheduler) else []
    for t in s.timesteps if not rows else []:
        x = s.step(x * 0.5 + 0.125, t, x).prev_sample
        rows.append(x.numpy().copy())
    return given.numpy().astype(np.float64), np.stack(rows)


def run_sprint(s, x, generator):
    """The loop of SanaSprintPipeline for one picture; x in units of sigma_data, and at the end x0, as it is decoded."""
    rows, unit = [], s.config.sigma_data
    x = x * unit
    for angle in s.timesteps[:-1]:
        angle = angle.expand(1)
        tau = tau_of(angle)
        given = (x / unit) * torch.sqrt(tau**2 + (1 - tau) ** 2)
        m = given * 0.5 + 0.125
        m = ((1 - 2 * tau) * given + (1 - 2 * tau + 2 * tau**2) * m) / torch.sqrt(tau**2 + (1 - tau) ** 2)
        x, x0 = s.step(m.float() * unit, angle, x, generator=generator, return_dict=False)
        rows.append((x / unit).numpy().copy())
    rows[-1] = (x0 / unit).numpy().copy()
    return rows
