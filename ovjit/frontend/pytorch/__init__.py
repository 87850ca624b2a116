"""Reading PyTorch modules: `convert_model` traces them, see `ovjit.frontends.torch_modules`.

What OpenVINO's front end has besides (extensions for operators and modules) is not there.
"""
