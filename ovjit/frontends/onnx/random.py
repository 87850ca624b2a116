"""Random numbers: no operation of OpenVINO that ovjit has says them yet."""
