import type { WasmFunction } from './wasm-assembler.ts'

/** Octets that the kernel looks at together. */
export const BLOCK = 16

/**
 * The line encoder (line-endings.ts) for sixteen octets at a time. Beside the block it loads the same sixteen octets one
 * place earlier, so that each octet and the one before it stand in the same lane. What has to be inserted follows:
 *
 *   a CR before every LF that has none before it (with keepCr before every LF),
 *   a dot before every dot that an LF is before.
 *
 * A block without either, and those are most, is two loads and one store. Otherwise each insertion writes its octet and
 * stores the rest of the block behind it again.
 *
 * The caller sees to it that the octet before the input is the one before it in the file (LF at the start), that a block of
 * zeros follows the input, and that a block of room follows the output.
 */

/** $lfs, $crs: LF and CR in every lane. $drop: all ones unless the CR before an LF is kept besides ours. */
const BEGIN = `
  local.get $in
  local.get $length
  i32.add
  local.set $end
  i32.const 10
  i8x16.splat
  local.set $lfs
  i32.const 13
  i8x16.splat
  local.set $crs
  local.get $keepCr
  i32.const 1
  i32.sub
  i8x16.splat
  local.set $drop
`

/** Loads $block and $before, and leaves a vector: all ones where an LF stands that needs a CR. */
const FIND_LINE_ENDS = `
  local.get $in
  v128.load
  local.tee $block
  local.get $lfs
  i8x16.eq
  local.get $in
  i32.const 1
  i32.sub
  v128.load
  local.tee $before
  local.get $crs
  i8x16.eq
  local.get $drop
  v128.and
  v128.andnot
`

const NEXT_BLOCK = `
  local.get $in
  i32.const ${BLOCK}
  i32.add
  local.set $in
`

const ENCODE: WasmFunction = {
  name: 'encode',
  params: ['$in', '$length', '$out', '$keepCr'],
  i32: ['$end', '$begin', '$insert', '$place', '$target', '$source'],
  v128: ['$block', '$before', '$lfs', '$crs', '$drop', '$dots'],
  body: `
    ${BEGIN}
    local.get $out
    local.set $begin
    i32.const 46
    i8x16.splat
    local.set $dots
    block $done
      loop $blocks
        local.get $in
        local.get $end
        i32.lt_u
        i32.eqz
        br_if $done
        ${FIND_LINE_ENDS}
        ;; or a dot with an LF before it
        local.get $block
        local.get $dots
        i8x16.eq
        local.get $before
        local.get $lfs
        i8x16.eq
        v128.and
        v128.or
        i8x16.bitmask
        local.set $insert

        local.get $out
        local.get $block
        v128.store

        block $unchanged
          loop $insertions
            local.get $insert
            i32.eqz
            br_if $unchanged
            local.get $insert
            i32.ctz
            local.set $place
            ;; clears that bit
            local.get $insert
            local.get $insert
            i32.const 1
            i32.sub
            i32.and
            local.set $insert

            local.get $in
            local.get $place
            i32.add
            local.set $source
            local.get $out
            local.get $place
            i32.add
            local.tee $target
            ;; a dot before a dot, a CR before an LF
            i32.const 46
            i32.const 13
            local.get $source
            i32.load8_u
            i32.const 46
            i32.eq
            select
            i32.store8
            ;; and the block from there on, one place further
            local.get $target
            i32.const 1
            i32.add
            local.get $source
            v128.load
            v128.store

            local.get $out
            i32.const 1
            i32.add
            local.set $out
            br $insertions
          end
        end
        local.get $out
        i32.const ${BLOCK}
        i32.add
        local.set $out
        ${NEXT_BLOCK}
        br $blocks
      end
    end
    ;; the last block may have reached beyond the input
    local.get $out
    local.get $begin
    i32.sub
    local.get $in
    local.get $end
    i32.sub
    i32.sub
  `,
}

/** How many CRs \`encode\` would insert. */
const COUNT: WasmFunction = {
  name: 'count',
  params: ['$in', '$length', '$keepCr'],
  i32: ['$end', '$added'],
  v128: ['$block', '$before', '$lfs', '$crs', '$drop'],
  body: `
    ${BEGIN}
    block $done
      loop $blocks
        local.get $in
        local.get $end
        i32.lt_u
        i32.eqz
        br_if $done
        ${FIND_LINE_ENDS}
        i8x16.bitmask
        i32.popcnt
        local.get $added
        i32.add
        local.set $added
        ${NEXT_BLOCK}
        br $blocks
      end
    end
    local.get $added
  `,
}

export const LINE_KERNEL: readonly WasmFunction[] = [ENCODE, COUNT]
