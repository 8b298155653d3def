"""The lock is released, Ctrl-C is answered, and the wheel's command is the program."""

import os
import signal
import subprocess
import sys
import threading
import time

import ossnet


def test_other_threads_go_on():
    counted, done = [], threading.Event()

    def count():
        while not done.is_set():
            counted.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    begin = time.perf_counter()
    ossnet.sweep(["oss-net-c", "unet3d"], (32, 512))
    end = time.perf_counter()
    done.set()
    thread.join()
    inside = [at for at in counted if begin < at < end]
    # A call that held the lock would let nothing in between its begin and its end; the thread asks every millisecond.
    assert len(inside) > 10, (len(inside), end - begin)


def test_ctrl_c_ends_the_work():
    # A shell's background job ignores interrupts, and so do its children.
    listens = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program = listens + "import ossnet\nprint('ready', flush=True)\nwhile True: ossnet.sweep(sides=(32, 1024))"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert "KeyboardInterrupt" in said and process.returncode in (-signal.SIGINT, 130), said


def test_the_command(command):
    assert command("--version").split()[:2] == ["ossnet", ossnet.__version__]
    wrong = command("memory", "--volume", "nonsense", ok=False)
    assert wrong.returncode == 2 and "nonsense" in wrong.stderr
    missing = command("mesh", "none.nii.gz", "--out", "x.ply", ok=False)
    assert missing.returncode == 1 and missing.stderr.startswith("ossnet: ")
    module = subprocess.run([sys.executable, "-m", "ossnet", "--version"], capture_output=True, text=True, check=True)
    assert module.stdout == command("--version")


def test_the_command_needs_no_numpy():
    program = "import sys, ossnet._command; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], env=os.environ).returncode == 0
