/**
 * Functions of C libraries through koffi: loading the module, typed calls, calls on threads, errors
 * of system calls, and memory for arguments.
 */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { constants } from 'node:os'

type Koffi = typeof import('koffi')

let loaded: Koffi | undefined

/**
 * koffi, loaded at the first call. The prebuilt module is opened at npm's path. koffi's search for
 * it takes 15 ms and `require`'s search for the package 2 ms, which is too much for a program that
 * starts once per connection.
 */
function koffi(): Koffi {
  if (loaded !== undefined) return loaded
  const { arch } = process
  for (const packages of PACKAGES) {
    const file = `${import.meta.dirname}/${packages}/@koromix/koffi-linux-${arch}/linux_${arch}/koffi.node`
    if (!existsSync(file)) continue
    const module: { exports: unknown } = { exports: {} }
    try {
      process.dlopen(module, file)
    } catch {
      // Not for this C library (musl).
      break
    }
    loaded = ready(module.exports)
    return loaded
  }
  // koffi searches more places, and its error names the cause.
  loaded = ready(createRequire(import.meta.url)('koffi'))
  return loaded
}

/**
 * Places of npm's packages relative to this file: as source, in a bundle or a chunk of one, and in
 * an installed package.
 */
const PACKAGES = ['../node_modules', '../../node_modules', '../..', '../../..']

/**
 * Loads the native module now, because a process that drops its privileges may not reach the file
 * afterwards.
 */
export const loadNativeModule = (): void => void koffi()

function ready(module: unknown): Koffi {
  if (!isKoffi(module)) throw new TypeError('koffi: the native module has no load()')
  return module
}

const isKoffi = (module: unknown): module is Koffi =>
  typeof module === 'object' && module !== null && typeof Reflect.get(module, 'load') === 'function'

type NativeArgument = number | string | null | Uint8Array

/** C types whose values are numbers here. 64-bit integers are exact up to 2^53. */
type Integer = 'int' | 'long' | 'short' | 'unsigned int' | 'unsigned long' | 'uint32_t' | 'size_t' | 'intptr_t'

/**
 * The argument that a parameter of a prototype takes: `const char *` a text or memory that ends
 * with NUL, any other pointer memory or NULL, an integer a number. A parameter in another form
 * takes nothing, so that the compiler rejects every call.
 */
type Argument<Parameter extends string> = Parameter extends `const char *${string}`
  ? string | Uint8Array
  : Parameter extends `${string} *${string}`
    ? Uint8Array | null
    : Parameter extends `${Integer} ${string}`
      ? number
      : never

type ArgumentList<Parameters extends string> = Parameters extends `${infer First}, ${infer Rest}`
  ? [Argument<First>, ...ArgumentList<Rest>]
  : [Argument<Parameters>]

/** The arguments of a function of C, read from its prototype by the compiler. */
export type ArgumentsOf<Prototype extends string> = Prototype extends `${string}(${infer Parameters})`
  ? ArgumentList<Parameters>
  : never

const libraries = new Map<string | null, ReturnType<Koffi['load']>>()

function library(name: string | null): ReturnType<Koffi['load']> {
  const known = libraries.get(name)
  if (known !== undefined) return known
  // By default koffi maps three quarters of a megabyte for every call on a thread beyond the
  // second.
  if (libraries.size === 0)
    koffi().config({ async_stack_size: 262_144, async_heap_size: 65_536, resident_async_pools: MAX_ASIDE })
  const handle = koffi().load(name)
  libraries.set(name, handle)
  return handle
}

/**
 * A function of the C library that returns an integer, by its prototype, which also types the
 * arguments. It is looked up at its first call. Memory that an argument points to must outlive the
 * call; a Buffer that is an argument does.
 */
export function nativeFunction<const Prototype extends string>(
  prototype: Prototype,
): (...args: ArgumentsOf<Prototype>) => number {
  let call: ((...args: readonly NativeArgument[]) => unknown) | undefined
  return (...args) => {
    call ??= library(null).func(prototype)
    return numberFrom(prototype, call(...args))
  }
}

function numberFrom(prototype: string, result: unknown): number {
  if (typeof result === 'number') return result
  if (typeof result === 'bigint') return Number(result)
  throw new TypeError(`${prototype} did not return a number`)
}

/**
 * A function of a shared library that returns a text or NULL, called on a separate thread so that
 * the event loop continues. The arguments are made when the call starts, so that waiting calls hold
 * no memory.
 */
export function asyncTextFunction<const Prototype extends string>(
  soname: string,
  prototype: Prototype,
): (makeArguments: () => ArgumentsOf<Prototype>) => Promise<string | undefined> {
  return asyncFunction(soname, prototype, result => (typeof result === 'string' ? result : undefined))
}

/**
 * As nativeFunction, called on a separate thread; memory among the arguments is kept until the call
 * returns. errno is lost.
 */
export function asyncNumberFunction<const Prototype extends string>(
  prototype: Prototype,
): (...args: ArgumentsOf<Prototype>) => Promise<number> {
  const call = asyncFunction(null, prototype, result => numberFrom(prototype, result))
  return (...args) => call(() => args)
}

/**
 * Maximum calls on threads at a time: twice the number of the runtime's threads, so that no thread
 * waits for the event loop. koffi keeps memory for this number of calls. Callers bound the calls
 * that wait: connections of the gate, popup's CheckQueue.
 */
const MAX_ASIDE = 8
let aside = 0
const waiting: (() => void)[] = []
const inUse = new Set<readonly NativeArgument[]>()

function asyncFunction<T>(
  soname: string | null,
  prototype: string,
  read: (result: unknown) => T,
): (makeArguments: () => readonly NativeArgument[]) => Promise<T> {
  let func: ReturnType<ReturnType<Koffi['load']>['func']> | undefined
  // Make only one promise for a call, because the gate makes such a call for every connection.
  return makeArguments =>
    new Promise<T>((resolve, reject) => {
      let args: readonly NativeArgument[] = []
      const start = (): void => {
        try {
          func ??= library(soname).func(prototype)
          args = makeArguments()
          // koffi keeps no reference. Without this one the runtime could free memory that C reads.
          inUse.add(args)
          func.async(...args, done)
        } catch (error) {
          done(error, undefined)
        }
      }
      const done = (error: unknown, result: unknown): void => {
        inUse.delete(args)
        const next = waiting.shift()
        if (next === undefined) aside -= 1
        else next()
        try {
          if (error !== null && error !== undefined) throw error
          resolve(read(result))
        } catch (failure) {
          reject(failure)
        }
      }
      if (aside >= MAX_ASIDE) waiting.push(start)
      else {
        aside += 1
        start()
      }
    })
}

/**
 * Calls back in a separate turn of the event loop whenever a descriptor is readable, until `stop`.
 * If nothing else keeps the process running, it ends while the watch is not `ref`ed. An error that
 * the callback throws is uncaught like any other error.
 */
export function watchReadable(fd: number, callback: () => void): { ref(): void; unref(): void; stop(): void } {
  const handle = koffi().node.poll(fd, { readable: true }, () => {
    try {
      callback()
    } catch (error) {
      // An error that passes through koffi ends the process without a message.
      process.nextTick(() => {
        throw error
      })
    }
  })
  return { ref: () => handle.ref(), unref: () => handle.unref(), stop: () => handle.close() }
}

/** errno of the last native call. */
export const lastErrno = (): number => koffi().errno()

/** A system call failed. `code` is the name of the errno (`ENOENT`). */
export class SystemCallError extends Error {
  override readonly name = 'SystemCallError'
  readonly syscall: string
  readonly errno: number
  readonly code: string

  constructor(syscall: string, errno: number) {
    const code = Object.entries(constants.errno).find(([, number]) => number === errno)?.[0] ?? `errno ${errno}`
    super(`${syscall}: ${code}`)
    this.syscall = syscall
    this.errno = errno
    this.code = code
  }
}

/** Returns the result of a call. Throws SystemCallError if the result is -1. */
export function checked(syscall: string, result: number): number {
  if (result === -1) throw new SystemCallError(syscall, lastErrno())
  return result
}

/**
 * Address of memory, valid while a reference keeps the memory alive. A number holds its 47 bits.
 */
export const addressOf = (memory: Uint8Array): number => Number(koffi().address(memory))

/**
 * A NULL-terminated `char *[]` with its strings behind it, in one piece of memory. Throws TypeError
 * on a NUL inside a string.
 */
export function stringArray(strings: readonly (string | Uint8Array)[]): Uint8Array {
  const text = textOf(strings)
  const memory = Buffer.alloc((strings.length + 1) * 8 + text.length)
  placeStrings(memory, addressOf(memory), [], strings.length, text)
  return memory
}

/**
 * Memory for one string array after the other, each with the same first strings, for a program that
 * is started many times.
 */
export class StringArrayMemory {
  /** A part of the memory of `beginning`, which this reference keeps alive. */
  readonly #pointers: Uint8Array
  #memory = Buffer.alloc(0)
  #base = 0

  /** `beginning`: made by `stringArray`, of this number of strings. */
  constructor(beginning: Uint8Array, count: number) {
    this.#pointers = beginning.subarray(0, count * 8)
  }

  /** Like stringArray, for the first strings and these. Overwrites the previous result. */
  fill(strings: readonly (string | Uint8Array)[]): Uint8Array {
    return this.#fill(strings.length, textOf(strings))
  }

  /**
   * Like `fill`, for strings that lie one after the other, each with its NUL. Throws TypeError if
   * the last one has none.
   */
  fillWith(block: Uint8Array): Uint8Array {
    let count = 0
    for (let nul = block.indexOf(0); nul >= 0; nul = block.indexOf(0, nul + 1)) count += 1
    return this.#fill(count, block)
  }

  #fill(count: number, text: Uint8Array): Uint8Array {
    const size = this.#pointers.length + (count + 1) * 8 + text.length
    if (size > this.#memory.length) {
      this.#memory = Buffer.alloc(Math.max(size, 4096))
      this.#base = addressOf(this.#memory)
    }
    placeStrings(this.#memory, this.#base, this.#pointers, count, text)
    return this.#memory
  }
}

/** The strings one after the other, each with its NUL. */
function textOf(strings: readonly (string | Uint8Array)[]): Buffer {
  if (strings.length === 0) return Buffer.alloc(0)
  return strings.every(piece => typeof piece === 'string')
    ? Buffer.from(`${strings.join('\0')}\0`)
    : Buffer.concat(strings.flatMap(piece => [typeof piece === 'string' ? Buffer.from(piece) : piece, NUL]))
}

/** `before`: pointers that come first. */
function placeStrings(
  memory: Buffer,
  base: number,
  before: Uint8Array | readonly [],
  count: number,
  text: Uint8Array,
): void {
  const table = before.length + (count + 1) * 8
  memory.set(before)
  let start = 0
  let at = before.length
  for (let i = 0; i < count; i++, at += 8) {
    const address = base + table + start
    memory.writeUInt32LE(address % TWO_32, at)
    memory.writeUInt32LE(Math.floor(address / TWO_32), at + 4)
    start = text.indexOf(0, start) + 1
  }
  if (start !== text.length) throw new TypeError('a NUL cannot stand in an argument or an environment variable')
  memory.fill(0, at, at + 8)
  memory.set(text, table)
}

const NUL = Uint8Array.of(0)
const TWO_32 = 0x1_0000_0000
