/* platform.h: which of the system's means the core uses.
 *
 * Linux has futexes and eventfd; everywhere else, and where the build asks for
 * it (AIO_PORTABLE), their twins do: condition variables and a pipe.
 */
#ifndef AIO_CORE_PLATFORM_H
#define AIO_CORE_PLATFORM_H

#if !defined(__linux__) && !defined(AIO_PORTABLE)
#define AIO_PORTABLE 1
#endif

/* macOS cannot bind a condition variable to the monotonic clock. */
#if !defined(__APPLE__)
#define AIO_CONDATTR_HAS_CLOCK 1
#endif

/* Tell the processor that this is a loop that waits for another core's write. */
#if defined(__x86_64__) || defined(__i386__)
#define aio_cpu_relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define aio_cpu_relax() __asm__ __volatile__("yield")
#else
#define aio_cpu_relax() ((void)0)
#endif

#endif
