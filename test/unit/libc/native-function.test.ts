import { expect, expectTypeOf, test } from 'vitest'
import { type ArgumentsOf, checked, nativeFunction } from '../../../src/libc/native-function.ts'

test('the type checker reads the arguments from the prototype', () => {
  expectTypeOf<ArgumentsOf<'int fcntl(int fd, int command, int argument)'>>().toEqualTypeOf<[number, number, number]>()
  expectTypeOf<ArgumentsOf<'long send(int fd, const void *octets, size_t size, unsigned long flags)'>>().toEqualTypeOf<
    [number, Uint8Array | null, number, number]
  >()
  expectTypeOf<ArgumentsOf<'int open(const char *path, int flags)'>>().toEqualTypeOf<[string | Uint8Array, number]>()
  // A function with an unknown type accepts no arguments.
  expectTypeOf<ArgumentsOf<'int f(struct timespec when)'>>().toEqualTypeOf<[never]>()
  // If the type checker was evaded, the native module refuses the type as well.
  expect(() => Reflect.apply(nativeFunction('int close(struct timespec when)'), undefined, [1])).toThrow(
    "invalid type name 'struct'",
  )
})

test('a text, and memory that ends with NUL, are the same path for C', () => {
  const access = nativeFunction('int access(const char *path, int mode)')
  expect(access('/', 0)).toBe(0)
  expect(access(Buffer.from('/\0'), 0)).toBe(0)
  expect(() => checked('access', access(Buffer.from('/nonexistent\0'), 0))).toThrow('access: ENOENT')
})

test('a result of 64 bits is a number', () => {
  const lseek = nativeFunction('long lseek(int fd, long offset, int whence)')
  expect(lseek(-1, 0, 0)).toBe(-1)
})
