"""The scheduler configs that are compared with diffusers, and diffusers' answer for one of them."""
import warnings

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

warnings.filterwarnings("ignore")
CLASSES = {"ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler}
STEPS = [1, 2, 4, 14, 15, 25, 50]

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
DDIM = {"_class_name": "DDIMScheduler"}
DPM = {"_class_name": "DPMSolverMultistepScheduler"}
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
}


def scheduler(config, kind):
    """What diffusers makes of the file, and with a kind, of Class.from_config(scheduler.config)."""
    own = {c.__name__: c for c in CLASSES.values()}[config["_class_name"]].from_config(config)
    return CLASSES[kind].from_config(own.config) if kind else own


def run(config, kind, steps, x):
    """Timesteps, and x after each step, where the network is m = 0.5 x + 0.125."""
    s = scheduler(config, kind)
    s.set_timesteps(steps)
    out = []
    for t in s.timesteps:
        x = s.step(x * 0.5 + 0.125, t, x).prev_sample
        out.append(x.numpy().copy())
    return s.timesteps.numpy().astype(np.int64), np.stack(out)
