//! The driver around the kernels: several devices, streams, events, copies, page-locked memory, threads, counters.

mod common;

use common::{BUGS, Gpu, KERNELS, Launch, from_address, numbers, threads, to_address};
use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, DevicePtr, DriverError, PushKernelArg};
use cudarc::nvrtc::Ptx;
use cuemu::{Config, Emulator, Exclusive, exclusive};

/// The emulator with two devices, whichever test comes first.
fn two_devices(config: Config) -> Exclusive {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: the only writer of the environment, before the library reads it.
    ONCE.call_once(|| unsafe { std::env::set_var("CUEMU_DEVICES", "2") });
    exclusive(config).unwrap()
}

#[test]
fn two_devices_are_two() {
    let s = two_devices(Config::checked());
    assert_eq!(CudaContext::device_count().unwrap(), 2);
    assert!(CudaContext::new(2).is_err());
    let (first, second) = (CudaContext::new(0).unwrap(), CudaContext::new(1).unwrap());
    assert_ne!(first.uuid().unwrap().bytes, second.uuid().unwrap().bytes);
    assert_eq!(first.compute_capability().unwrap(), (8, 0));
    let x = numbers(1000, 1);
    let on_first = first.default_stream().clone_htod(&x).unwrap();
    let mut on_second = second.default_stream().alloc_zeros::<f32>(1000).unwrap();
    assert_eq!((s.memory(0).0, s.memory(1).0), (4000, 4000));
    second.default_stream().memcpy_dtod(&on_first, &mut on_second).unwrap();
    assert_eq!(second.default_stream().clone_dtoh(&on_second).unwrap(), x);
    // A module belongs to the device it was loaded on.
    let module = first.load_module(Ptx::from_src(BUGS)).unwrap();
    let kernel = module.load_function("copy").unwrap();
    let (from, to) = (on_first.device_ptr(&first.default_stream()).0, on_second.device_ptr(&second.default_stream()).0);
    let stream = second.default_stream();
    let launched = stream.launch_builder(&kernel).arg(&from).arg(&to).run(threads(32, 32));
    assert_eq!(launched.map(|_| ()), Err(DriverError(CUresult::CUDA_ERROR_INVALID_HANDLE)));
    drop((on_first, on_second, module, kernel, first, second));
    assert_eq!((s.memory(0).0, s.memory(1).0), (0, 0));
}

#[test]
fn modules_come_and_go_on_several_threads() {
    let _s = two_devices(Config::default());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| drop(Gpu::new(BUGS).kernel("copy"))));
        }
    });
}

#[test]
fn streams_events_and_page_locked_memory() {
    let s = two_devices(Config::checked());
    let gpu = Gpu::new(KERNELS);
    let (one, two) = (gpu.context.new_stream().unwrap(), gpu.context.new_stream().unwrap());
    let x = numbers(500, 2);
    // SAFETY: written in the next line.
    let mut pinned = unsafe { gpu.context.alloc_pinned::<f32>(500) }.unwrap();
    pinned.as_mut_slice().unwrap().copy_from_slice(&x);
    let dx = one.clone_htod(&pinned).unwrap();
    let coefficients = one.clone_htod(&numbers(10, 3)).unwrap();
    let mut dy = one.alloc_zeros::<f32>(500).unwrap();
    let begin = one.record_event(Some(cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
    one.launch_builder(&gpu.kernel("pade54"))
        .arg(&dx)
        .arg(&coefficients)
        .arg(&mut dy)
        .arg(&500i32)
        .run(threads(500, 128))
        .unwrap();
    let end = one.record_event(Some(cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
    two.wait(&end).unwrap();
    assert!(begin.elapsed_ms(&end).unwrap() >= 0.0 && end.is_complete());
    assert_eq!(two.clone_dtoh(&dy).unwrap().len(), 500);
    let (free, total) = gpu.context.mem_get_info().unwrap();
    assert_eq!(total - free, 4 * (500 + 10 + 500));
    s.assert_clean();
}

#[test]
fn copies_out_of_bounds_are_refused() {
    let s = two_devices(Config::default());
    let gpu = Gpu::new(BUGS);
    let small = gpu.stream.alloc_zeros::<f32>(10).unwrap();
    let address = small.device_ptr(&gpu.stream).0;
    let mut host = [0f32; 11];
    assert!(from_address(&mut host, address).is_err());
    assert!(to_address(address + 4, &host[..10]).is_err());
    let found = s.findings();
    assert!(found.len() == 2 && found.iter().all(|f| f.detail.contains("bytes")), "{found:?}");
    assert!(from_address(&mut host[..10], address).is_ok());
}

#[test]
fn copies_carry_undefinedness_with_them() {
    let s = two_devices(Config::checked());
    let gpu = Gpu::new(BUGS);
    let half_written = gpu.undefined(8);
    let address = half_written.device_ptr(&gpu.stream).0;
    to_address(address, &[1.0f32; 4]).unwrap();
    let mut copy = gpu.undefined(8);
    gpu.stream.memcpy_dtod(&half_written, &mut copy).unwrap();
    s.assert_clean();
    gpu.stream.clone_dtoh(&copy).unwrap();
    assert!(s.findings()[0].detail.contains("byte 16"), "{:?}", s.findings());
}

#[test]
fn threads_have_records_and_settings_of_their_own() {
    let s = two_devices(Config::checked());
    let emulator: &'static Emulator = s.emulator;
    let gpu = Gpu::new(BUGS);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            emulator.configure(Config::checked());
            gpu.context.bind_to_thread().unwrap();
            let input = gpu.undefined(32);
            let mut out = gpu.stream.alloc_zeros::<f32>(32).unwrap();
            gpu.stream.launch_builder(&gpu.kernel("copy")).arg(&input).arg(&mut out).run(threads(32, 32)).unwrap();
            (emulator.findings().len(), emulator.counters_of("copy").launches, emulator.host_counters().launches)
        });
        assert_eq!(other.join().unwrap(), (1, 1, 1));
    });
    assert!(s.findings().is_empty() && s.counters().is_empty());
    assert!(emulator.findings_of_all().iter().any(|f| f.kernel == "copy"));
    assert!(emulator.counters_of_all().iter().any(|c| c.kernel == "copy"));
}

#[test]
fn the_host_is_counted() {
    let s = two_devices(Config::default());
    let gpu = Gpu::new(BUGS);
    s.reset();
    let input = gpu.stream.clone_htod(&[1.0f32; 32]).unwrap();
    let mut out = gpu.stream.alloc_zeros::<f32>(32).unwrap();
    for _ in 0..3 {
        gpu.stream.launch_builder(&gpu.kernel("copy")).arg(&input).arg(&mut out).run(threads(32, 32)).unwrap();
    }
    let before = s.host_counters().synchronisations;
    gpu.stream.synchronize().unwrap();
    let host = s.host_counters();
    assert_eq!((host.launches, host.bytes_to_device, host.bytes_on_device, host.allocations), (3, 128, 128, 2));
    assert_eq!((host.synchronisations - before, host.bytes_to_host), (1, 0));
    assert_eq!(s.counters_of("copy").launches, 3);
    assert_eq!(gpu.stream.clone_dtoh(&out).unwrap(), [1.0; 32]);
    assert_eq!(s.host_counters().bytes_to_host, 128);
}

#[test]
fn an_idle_device_counts_and_does_nothing() {
    let s = two_devices(Config { idle: true, ..Config::default() });
    let gpu = Gpu::new(BUGS);
    let input = gpu.stream.clone_htod(&[1.0f32; 32]).unwrap();
    let mut out = gpu.stream.alloc_zeros::<f32>(32).unwrap();
    let copy = gpu.kernel("copy");
    gpu.stream.launch_builder(&copy).arg(&input).arg(&mut out).run(threads(32, 32)).unwrap();
    let counters = s.counters_of("copy");
    assert_eq!((counters.launches, counters.blocks, counters.global_store_bytes), (1, 0, 0));
    assert_eq!(gpu.stream.clone_dtoh(&out).unwrap(), [0.0; 32]);
    // What no device takes is refused as ever.
    assert!(gpu.stream.launch_builder(&copy).arg(&input).arg(&mut out).run(threads(2048, 2048)).is_err());
}

#[test]
fn modules_have_variables_and_can_be_unloaded() {
    let _s = two_devices(Config::default());
    let gpu = Gpu::new(KERNELS);
    let counter = gpu.module.get_global("finished", &gpu.stream).unwrap();
    assert_eq!(gpu.stream.clone_dtoh(&counter).unwrap(), [0; 4]);
    assert!(gpu.module.get_global("no_such_variable", &gpu.stream).is_err());
    assert!(gpu.module.load_function("no_such_kernel").is_err());
    assert!(gpu.context.load_module(Ptx::from_file("/no/such/file.ptx")).is_err());
    let elf = gpu.context.load_module(Ptx::from_src("\u{7f}ELF and more"));
    assert_eq!(elf.map(|_| ()), Err(DriverError(CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU)));
}

#[test]
fn a_graph_does_again_what_was_captured() {
    use cudarc::driver::sys::{CUgraphInstantiate_flags as Flags, CUstreamCaptureMode as Mode};
    let s = two_devices(Config::checked());
    let gpu = Gpu::new(BUGS);
    let stream = gpu.context.new_stream().unwrap();
    let [input, middle, output] = [0; 3].map(|_| gpu.stream.alloc_zeros::<f32>(32).unwrap());
    let [a, b, c] = [&input, &middle, &output].map(|slice| slice.device_ptr(&gpu.stream).0);
    let copy = gpu.kernel("copy");
    stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
    stream.launch_builder(&copy).arg(&a).arg(&b).run(threads(32, 32)).unwrap();
    // SAFETY: both ranges are live allocations of 128 bytes.
    unsafe {
        cudarc::driver::result::memcpy_dtod_async(c, b, 64, stream.cu_stream()).unwrap();
        cudarc::driver::result::memset_d8_async(b, 0, 128, stream.cu_stream()).unwrap();
    }
    // Memory that counts as unwritten from here on does so when the graph gets there.
    s.emulator.undefine(b, 128);
    assert_eq!((s.host_counters().launches, s.counters_of("copy").launches), (0, 0));
    let flags = Flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags).unwrap().unwrap();
    for round in 1..3u8 {
        let x = [f32::from(round); 32];
        to_address(a, &x).unwrap();
        graph.launch().unwrap();
        stream.synchronize().unwrap();
        let mut got = [0f32; 32];
        from_address(&mut got[..16], c).unwrap();
        assert_eq!(got[..16], x[..16]);
        assert_eq!((s.host_counters().launches, s.counters_of("copy").launches), (1, 1));
        s.assert_clean();
        from_address(&mut got, b).unwrap();
        assert_eq!(s.findings().len(), 1, "the middle was undefined at the end");
        s.reset();
    }
    // Waiting for a stream is nothing that a graph can hold.
    stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
    assert_eq!(stream.synchronize(), Err(DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)));
    let ended = stream.end_capture(flags).map(|graph| graph.is_some());
    assert_eq!(ended, Err(DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)));
    stream.synchronize().unwrap();
}

/// What a thread asks of streams is kept in its order, with the stream, and the event or the address.
#[test]
fn calls_are_kept_in_their_order() {
    use cuemu::CallKind::{
        Graph, HostWaitsForEvent, HostWaitsForStream, Launch, Record, StreamWaits, ToDevice, ToHost,
    };
    let s = two_devices(Config::default());
    let gpu = Gpu::new(BUGS);
    let (one, two) = (gpu.context.new_stream().unwrap(), gpu.context.new_stream().unwrap());
    let (from, to) = (gpu.undefined(32), gpu.undefined(32));
    let (from, to) = (from.device_ptr(&gpu.stream).0, to.device_ptr(&gpu.stream).0);
    let (kernel, mut host) = (gpu.kernel("copy"), numbers(32, 1));
    let launch = || two.launch_builder(&kernel).arg(&from).arg(&to).run(threads(32, 32)).unwrap();
    s.keep_calls();
    // SAFETY: the host's memory lives on; the emulator copies at once.
    unsafe { cudarc::driver::result::memcpy_htod_async(from, &host, one.cu_stream()) }.unwrap();
    let event = one.record_event(None).unwrap();
    two.wait(&event).unwrap();
    launch();
    event.synchronize().unwrap();
    // SAFETY: as above.
    unsafe { cudarc::driver::result::memcpy_dtoh_async(&mut host, to, two.cu_stream()) }.unwrap();
    two.synchronize().unwrap();
    two.begin_capture(cudarc::driver::sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
    launch();
    let flags = cudarc::driver::sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    two.end_capture(flags).unwrap().unwrap().launch().unwrap();
    let calls = s.take_calls();
    let (first, second) = (one.cu_stream() as u64, two.cu_stream() as u64);
    let told: Vec<_> = calls.iter().map(|call| (call.kind, call.stream, call.bytes)).collect();
    let expected = [
        (ToDevice, first, 128),
        (Record, first, 0),
        (StreamWaits, second, 0),
        (Launch, second, 0),
        (HostWaitsForEvent, 0, 0),
        (ToHost, second, 128),
        (HostWaitsForStream, second, 0),
        (Launch, second, 0),
        (Graph, second, 0),
    ];
    assert_eq!(told, expected);
    assert_eq!((calls[0].of, calls[5].of, calls[3].kernel.as_str()), (from, to, "copy"));
    assert!(calls[1].of == calls[2].of && calls[2].of == calls[4].of && calls[1].of != 0);
    // Kept no more.
    two.synchronize().unwrap();
    assert!(s.take_calls().is_empty());
}
