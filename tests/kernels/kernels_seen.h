/* kernels_seen: which of our own kernels a test program launched, of all that are in it.
 *
 * For programs linked with kernels_seen.c and --wrap of the calls that it names: each kernel is registered by the code
 * that the compiler makes before main, and its handle asked for as it is first launched. What the libraries launch is not
 * seen: they have a runtime of their own.
 *
 * Threads  any; report after all launches
 */
#ifndef WEIR_TESTS_KERNELS_KERNELS_SEEN_H
#define WEIR_TESTS_KERNELS_KERNELS_SEEN_H

/* Prints "kernels=N launched=M". If WEIR_KERNELS_SEEN names a file, a line for each kernel is written at its end:
 * "launched NAME" or "idle NAME", with the name as the linker knows it. */
void weir_kernels_seen_report(void);

#endif
