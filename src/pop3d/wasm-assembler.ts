/**
 * Assembles WebAssembly from its text instructions: the few that our kernel uses, in flat form, one a line, with named
 * locals and labels. `;;` begins a comment. The kernel's source is then what runs, and installing needs no toolchain.
 */
export interface WasmFunction {
  readonly name: string
  /** All of type i32, as the result is. */
  readonly params: readonly string[]
  readonly i32: readonly string[]
  readonly v128: readonly string[]
  readonly body: string
}

const I32 = 0x7f
const V128 = 0x7b
const NO_RESULT = 0x40

/** Instructions without an operand. */
const PLAIN: Readonly<Record<string, readonly number[]>> = {
  select: [0x1b],
  'i32.eqz': [0x45],
  'i32.eq': [0x46],
  'i32.lt_u': [0x49],
  'i32.ctz': [0x68],
  'i32.popcnt': [0x69],
  'i32.add': [0x6a],
  'i32.sub': [0x6b],
  'i32.and': [0x71],
  // Loads and stores: no alignment promised, no offset.
  'i32.load8_u': [0x2d, 0, 0],
  'i32.store8': [0x3a, 0, 0],
  'v128.load': [0xfd, 0x00, 0, 0],
  'v128.store': [0xfd, 0x0b, 0, 0],
  'i8x16.splat': [0xfd, 0x0f],
  'i8x16.eq': [0xfd, 0x23],
  'i8x16.bitmask': [0xfd, 0x64],
  'v128.and': [0xfd, 0x4e],
  'v128.andnot': [0xfd, 0x4f],
  'v128.or': [0xfd, 0x50],
}

const LOCAL: Readonly<Record<string, number>> = { 'local.get': 0x20, 'local.set': 0x21, 'local.tee': 0x22 }
const BLOCK: Readonly<Record<string, number>> = { block: 0x02, loop: 0x03 }
const BRANCH: Readonly<Record<string, number>> = { br: 0x0c, br_if: 0x0d }

/** The binary module: exports the functions, and a memory of `pages` times 64 KiB as `memory`. */
export function assemble(functions: readonly WasmFunction[], pages: number): Uint8Array<ArrayBuffer> {
  const types = functions.map(({ params }) => [0x60, ...vector(params.map(() => [I32])), 1, I32])
  const memory = [0, ...unsigned(pages)]
  const exports = [
    [...name('memory'), 2, 0],
    ...functions.map((fn, index) => [...name(fn.name), 0, ...unsigned(index)]),
  ]
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, vector(types)),
    ...section(3, vector(functions.map((_, index) => unsigned(index)))),
    ...section(5, vector([memory])),
    ...section(7, vector(exports)),
    ...section(10, vector(functions.map(code))),
  ])
}

function code({ name: functionName, params, i32, v128, body }: WasmFunction): readonly number[] {
  const locals = [...params, ...i32, ...v128]
  const labels: string[] = []
  const instruction = (line: string): readonly number[] => {
    const [operator = '', operand = ''] = line.split(/\s+/)
    const fault = () => new SyntaxError(`${functionName}: ${line}`)
    const plain = PLAIN[operator]
    if (plain !== undefined) return plain
    if (operator === 'i32.const') return [0x41, ...signed(Number(operand))]
    if (operator === 'end') {
      labels.pop()
      return [0x0b]
    }
    const block = BLOCK[operator]
    if (block !== undefined) {
      labels.push(operand)
      return [block, NO_RESULT]
    }
    const local = LOCAL[operator]
    const branch = BRANCH[operator]
    const index = local !== undefined ? locals.indexOf(operand) : labels.lastIndexOf(operand)
    if (index < 0) throw fault()
    if (local !== undefined) return [local, ...unsigned(index)]
    if (branch !== undefined) return [branch, ...unsigned(labels.length - 1 - index)]
    throw fault()
  }
  const instructions = body
    .split('\n')
    .map(line => line.replace(/;;.*/, '').trim())
    .filter(line => line !== '')
    .flatMap(instruction)
  const groups = vector([
    [...unsigned(i32.length), I32],
    [...unsigned(v128.length), V128],
  ])
  const bytes = [...groups, ...instructions, 0x0b]
  return [...unsigned(bytes.length), ...bytes]
}

const section = (id: number, content: readonly number[]): readonly number[] => [
  id,
  ...unsigned(content.length),
  ...content,
]

const vector = (items: readonly (readonly number[])[]): readonly number[] => [
  ...unsigned(items.length),
  ...items.flat(),
]

const name = (text: string): readonly number[] => vector([...Buffer.from(text)].map(octet => [octet]))

/** LEB128. */
function unsigned(value: number): readonly number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)]
}

/** Signed LEB128. */
function signed(value: number): readonly number[] {
  const low = value & 0x7f
  const rest = value >> 7
  const isLast = (rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0)
  return isLast ? [low] : [low | 0x80, ...signed(rest)]
}
