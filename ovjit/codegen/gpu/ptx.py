"""From a kernel's source to PTX, which a driver compiles for its card.

    llvm_text(source)            the LLVM module of a kernel, for one thread of a warp
    compile_ptx(source, entry)   its PTX, with an entry point that runs one chunk per warp

An entry point `entry(bases, args, start, end, scratch, scratch_bytes, error)` runs blocks of `blockDim.y`
warps. Warp w of block b runs the chunk `start + b * blockDim.y + w`, if it is below `end`, with
`scratch_bytes` bytes of scratch memory of its own. A kernel's error code, if it is not 0, is stored at
`error`.

On cards of compute capability 9.0 and more, an entry point may start while the kernel before it runs. It
awaits the end of that one before it reads anything, so only the time of the launch is saved.

Needs llvmlite, and neither Numba nor a card. PTX 8.0 for `sm_80` runs on cards of compute capability 8.0 and
more, with drivers from CUDA 12.0 on.
"""

from __future__ import annotations

import functools
import re

import llvmlite.binding as llvm
import llvmlite.ir as ir

from ovjit.codegen import compiling
from ovjit.codegen.cpu import emit, language
from ovjit.codegen.cpu.printing import Module
from ovjit.codegen.cpu.reading import read
from ovjit.codegen.cpu.targets import TARGETS, Target
from ovjit.codegen.gpu.barriers import with_barriers
from ovjit.codegen.gpu.interleave import interleave_loops
from ovjit.codegen.gpu.library import namespace
from ovjit.codegen.gpu.tensor_blocks import MAP
from ovjit.codegen.gpu.words import WARP
from ovjit.codegen.source import define_functions
from ovjit.codegen.warps import ATOM, LINE, Form, block_form

TRIPLE = "nvptx64-nvidia-cuda"
#: The version of PTX, as a feature of LLVM's target.
PTX_VERSION = "ptx80"
#: The same for kernels for blocks, which run on cards of compute capability 9.0 with drivers from CUDA 12.4
#: on.
BLOCK_CPU, BLOCK_VERSION = "sm_90a", "ptx84"
#: The optional feature of targets for early starts, which is LLVM's name of the oldest cards that have them.
EARLY = "sm_90"

_ENTRY = """
define ptx_kernel void @{entry}(
  i64 %bases, i64 %args, i64 %start, i64 %end, i64 %scratch, i64 %scratch_bytes, i64 %error
) {{
{wait}  %block = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
  %warps = call i32 @llvm.nvvm.read.ptx.sreg.ntid.y()
  %warp = call i32 @llvm.nvvm.read.ptx.sreg.tid.y()
  %before = mul i32 %block, %warps
  %number32 = add i32 %before, %warp
  %number = zext i32 %number32 to i64
  %chunk = add i64 %start, %number
  %exists = icmp slt i64 %chunk, %end
  br i1 %exists, label %run, label %done
run:
  %offset = mul i64 %number, %scratch_bytes
  %own = add i64 %scratch, %offset
  %code = call i64 @ovjit_kernel(i64 %bases, i64 %args, i64 %chunk, i64 %own)
  %failed = icmp ne i64 %code, 0
  br i1 %failed, label %fail, label %done
fail:
  %place = inttoptr i64 %error to ptr addrspace(1)
  store i64 %code, ptr addrspace(1) %place
  br label %done
done:
  ret void
}}
"""
_REGISTERS = ("ctaid.x", "ntid.y", "tid.y")
#: The begin of an entry point that may start while the kernel before it runs, and the first line of its PTX.
_WAIT = """  call void asm sideeffect "griddepcontrol.launch_dependents;", "~{memory}"() convergent
  call void asm sideeffect "griddepcontrol.wait;", "~{memory}"() convergent
"""
_EARLY = "// ovjit early\n"
#: The entry point of a kernel for blocks: a chunk is a block. Its tensor map comes first, at a multiple of
#: 128 bytes, as headers of CUDA 13 have it.
_BLOCK_ENTRY = """
define ptx_kernel void @{entry}(
  ptr byval([128 x i8]) align 128 %{map},
  i64 %bases, i64 %args, i64 %start, i64 %end, i64 %scratch, i64 %scratch_bytes, i64 %error
) "nvvm.maxntid"="32,{warps}" "nvvm.minctasm"="{blocks}" {{
  %block = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
  %number = zext i32 %block to i64
  %chunk = add i64 %start, %number
  %code = call i64 @ovjit_kernel(i64 %bases, i64 %args, i64 %chunk, i64 %scratch)
  ret void
}}
"""
#: The entry point of a kernel for blocks without a tensor map.
_TEAM_ENTRY = _BLOCK_ENTRY.replace("  ptr byval([128 x i8]) align 128 %{map},\n", "").replace(
    "  %block =", "{wait}  %block ="
)
#: Arguments of `copy_box` and `copy_pixels` between the address in shared memory and the barrier.
_BOX = re.compile(r"\bcopy_(box|pixels)\([^,]+, ([^()]*), [^,]+\)")
_ARGUMENT = re.compile(r"^ {4}(\w+) = (?:ld\(bases, ld\(args, (\d+)\)\) \+ )?ld\(args, (\d+)\)$", re.M)


def llvm_text(source: str, target: Target | None = None) -> str:
    """The LLVM module of a kernel's source, for one thread of a warp: the function `ovjit_kernel` of four
    int64s. Raises UnsupportedError for words that have no code for GPUs."""
    module = Module(target or TARGETS["cuda"])
    module.triple = TRIPLE
    text = interleave_loops(with_barriers(source))
    for name, function in define_functions(text, f"<ovjit gpu {hash(text)}>", WARP, namespace()).items():
        lowered = ir.Function(module, ir.FunctionType(ir.IntType(64), [ir.IntType(64)] * 4), f"ovjit_{name}")
        lowered.linkage = "internal"
        lowered.attributes.add("alwaysinline")
        language.lower(read(function), lowered, namespace)
    return str(module) + "\n!0 = !{}\n"


def compile_ptx(source: str, entry: str, target: Target | None = None) -> str:
    """The PTX of a kernel's source, with the entry point `entry`."""
    chosen, form = target or TARGETS["cuda"], block_form(source)
    has_map = form is not None and form.size > 0
    early = not has_map and EARLY in chosen.extras and not (form is not None and form.requested)
    with compiling.lock:
        text = llvm_text(source, chosen)
        if form is None:
            text += _ENTRY.format(entry=entry, wait=_WAIT if early else "")
        else:
            entry_text = _BLOCK_ENTRY if has_map else _TEAM_ENTRY
            wait = _WAIT if early else ""
            text += entry_text.format(entry=entry, map=MAP, wait=wait, **form._asdict())
        for register in _REGISTERS:
            if f'declare i32 @"llvm.nvvm.read.ptx.sreg.{register}"' not in text:
                text += f"declare i32 @llvm.nvvm.read.ptx.sreg.{register}()\n"
        plain = _machine(EARLY if early else chosen.cpu)
        machine = _machine(BLOCK_CPU, BLOCK_VERSION) if has_map else plain
        module = llvm.parse_assembly(text)
        module.data_layout = str(machine.target_data)
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        options.loop_vectorization = options.slp_vectorization = False
        passes = llvm.create_pass_builder(machine, options)
        passes.getModulePassManager().run(module, passes)
        ptx: str = machine.emit_assembly(module)
    head = "" if form is None else _head_of(source, form)
    return (_EARLY if early else "") + head + ptx.replace(MAP, f"{entry}_param_0")


def _head_of(source: str, form: Form) -> str:
    """A line for `ovjit.gpu.blocks`: warps, bytes of shared memory, and the tensor of the map by numbers of
    arguments and constants (#1). These are the offset after the base; sizes, steps, the box and its
    strides, the last dimension first. Without a map: the warps, and the argument with their number in all."""
    slots = {name: number for name, _, number in _ARGUMENT.findall(source)}
    if not form.size:
        return f"// ovjit team {form.warps} {slots.get(form.requested, '#0')}\n"
    match = _BOX.search(source)
    assert match is not None, "a kernel for blocks copies boxes of one tensor"
    names, line, one = match[2].split(", "), f"#{LINE}", "#1"
    if match[1] == "box":
        a, step, rows, depth, *_, height = names
        lists = [depth, rows], [step], [line, f"#{height}"], [one, one]
    else:
        a, *further = names
        steps, sizes, box, strides = further[:3], further[3:7], further[7:10], further[10:12]
        lists = sizes, steps, [line, *box], [one, *strides, one]
    parts = (",".join(str(slots.get(name, name)) for name in each) for each in ([a], *lists))
    size = form.size + ATOM  # the memory is aligned within it
    return f"// ovjit block {form.warps} {size} {' '.join(parts)}\n"


@functools.cache
def _machine(cpu: str, version: str = PTX_VERSION) -> llvm.TargetMachine:
    emit.initialize_all()
    target = llvm.Target.from_triple(TRIPLE)
    return target.create_target_machine(cpu=cpu, features=f"+{version}", opt=3)
