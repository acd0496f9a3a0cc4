"""Trees of `/sys` and `/proc` as nodes with accelerators have them, built from what was recorded.

Each function writes one device below a folder that stands for `/`, with the files and links that
its kernel and driver make, and no more. A test puts several into one folder, and takes some out.
"""

import shutil
from pathlib import Path
from typing import Any

GIB = 1024**3


def write(root: Path, files: dict[str, Any]) -> None:
    """Write files; a `Path` as value is a link to it."""
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            file.unlink(missing_ok=True)
            file.symlink_to(content)
        else:
            file.write_text(f"{content}\n")


def remove(root: Path, address: str) -> None:
    """Take a card out."""
    for each in ("sys/bus/pci/devices", "proc/driver/nvidia/gpus"):
        shutil.rmtree(root / each / address, ignore_errors=True)


def pci(
    root: Path,
    address: str,
    *,
    vendor: str,
    device: str,
    kind: str = "0x030200",
    driver: str | None = None,
    **files: Any,
) -> Path:
    """A device on the PCI bus, with `files` of its own; the folder of it."""
    folder = root / "sys/bus/pci/devices" / address
    write(folder, {"vendor": vendor, "device": device, "class": kind, **files})
    if driver is not None:
        write(folder, {"driver": Path(f"../../../../bus/pci/drivers/{driver}")})
    return folder


def character_device(root: Path, name: str, numbers: str) -> None:
    """A device that the kernel tells udev of."""
    major, minor = numbers.split(":")
    told = f"MAJOR={major}\nMINOR={minor}\nDEVNAME={name}"
    write(root / "sys/dev/char" / numbers, {"uevent": told})


def drm(root: Path, address: str, number: int) -> None:
    """The graphics device nodes of a card. The number is an index: it may change at every boot."""
    for name, minor in ((f"card{number}", number), (f"renderD{128 + number}", 128 + number)):
        folder = root / "sys/bus/pci/devices" / address / "drm" / name
        write(folder, {"dev": f"226:{minor}"})
        character_device(root, f"dri/{name}", f"226:{minor}")


def nvidia(
    root: Path,
    address: str,
    *,
    minor: int | None,
    uuid: str = "GPU-3f2c8f6e-1b7d-4d0c-9a40-5e0f6a1c2b3d",
    model: str = "NVIDIA H100 80GB HBM3",
    driver: str | None = "nvidia",
    card: int | None = None,
) -> None:
    """A card of NVIDIA; `minor` None: its driver does not know it."""
    pci(root, address, vendor="0x10de", device="0x2330", driver=driver)
    if minor is not None:
        write(
            root / "proc/driver/nvidia/gpus" / address,
            {
                "information": "\n".join(
                    (
                        f"Model: \t\t {model}",
                        "IRQ:   \t\t 196",
                        f"GPU UUID: \t {uuid}",
                        "Video BIOS: \t 96.00.89.00.01",
                        "Bus Type: \t PCIe",
                        f"Bus Location: \t {address}",
                        f"Device Minor: \t {minor}",
                        "GPU Firmware: \t 570.124.06",
                    )
                )
            },
        )
    if card is not None:
        drm(root, address, card)


def amd(root: Path, address: str, *, card: int, **files: Any) -> None:
    """An Instinct MI210 with its driver and the hardware monitor."""
    recorded = {
        "product_name": "AMD Instinct MI210",
        "unique_id": "9f4b2c7a3d1e5f60",
        "gpu_busy_percent": 37,
        "mem_info_vram_total": 64 * GIB,
        "mem_info_vram_used": 5 * GIB,
        "hwmon/hwmon4/temp1_input": 51000,
        "hwmon/hwmon4/power1_average": 187000000,
    }
    pci(
        root, address, vendor="0x1002", device="0x740f", kind="0x038000", driver="amdgpu",
        **{**recorded, **files},
    )  # fmt: skip
    drm(root, address, card)
    character_device(root, "kfd", "511:0")


def intel(root: Path, address: str, *, card: int, driver: str = "xe", **files: Any) -> None:
    """An Arc A770; its driver tells its memory, and a temperature at most."""
    recorded = {
        "tile0/physical_vram_size_bytes": hex(16 * GIB),
        "hwmon/hwmon2/temp1_input": 44000,
    }
    pci(
        root, address, vendor="0x8086", device="0x56a0", kind="0x030000", driver=driver,
        **(files or recorded),
    )  # fmt: skip
    drm(root, address, card)


def coral(root: Path, address: str, number: int) -> None:
    folder = pci(root, address, vendor="0x1ac1", device="0x089a", kind="0x0880ff", driver="apex")
    write(folder / f"apex/apex_{number}", {"dev": f"120:{number}", "temp": 48300})


def jetson(root: Path, name: str = "17000000.gpu", load: int = 842) -> None:
    """A Jetson AGX Orin, whose graphics unit is called so in this release of its system."""
    write(
        root,
        {
            "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
            f"sys/class/devfreq/{name}/device/load": load,
            "sys/class/devfreq/15340000.vic/device/load": 5,
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": 61000,
            "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
            "sys/class/thermal/thermal_zone1/temp": 57500,
            "sys/class/hwmon/hwmon1/in1_label": "VDD_GPU_SOC",
            "sys/class/hwmon/hwmon1/in1_input": 19800,
            "sys/class/hwmon/hwmon1/curr1_input": 400,
        },
    )
    for minor, device in enumerate(
        (
            "nvhost-ctrl", "nvhost-gpu", "nvhost-ctrl-gpu", "nvhost-as-gpu", "nvhost-tsg-gpu",
            "nvhost-nvsched_ctrl_fifo-gpu", "nvhost-power-gpu", "nvhost-vic", "nvgpu/igpu0/ctrl",
            "nvgpu/igpu0/power",
        )
    ):  # fmt: skip
        character_device(root, device, f"505:{minor}")
    character_device(root, "nvmap", "10:61")


def others(root: Path) -> None:
    """What a server has besides, none of it an accelerator to lend."""
    pci(root, "0000:00:02.0", vendor="0x8086", device="0x46a6", kind="0x030000", driver="i915")
    pci(root, "0000:03:00.0", vendor="0x1a03", device="0x2000", kind="0x030000", driver="ast")
    pci(root, "0000:41:00.0", vendor="0x8086", device="0x159b", kind="0x020000", driver="ice")
    pci(root, "0000:65:00.1", vendor="0x10de", device="0x22ba", kind="0x040300", driver="snd")


PCI_IDS = """\
# a comment
1002  Advanced Micro Devices, Inc. [AMD/ATI]
\t740f  Aldebaran/MI200 [Instinct MI210]
10de  NVIDIA Corporation
\t2330  GH100 [H100 SXM5 80GB]
\t\t10de 16c1  a subsystem
\t26b9  AD102GL
8086  Intel Corporation
\t56a0  DG2 [Arc A770]
\t2330  not this one
"""
