import type { WasmFunction } from './wasm-assembler.ts'

/**
 * The line encoder (line-endings.ts) for sixteen octets at a time. In each block one comparison finds the LFs, one the CRs
 * and one the dots; each becomes a mask of sixteen bits. What has to be inserted follows from the masks alone:
 *
 *   a CR before every LF that has none:   lf & ~(cr << 1 | a CR ended the block before), all LFs with keepCr
 *   a dot before every dot after an LF:   dot & (lf << 1 | an LF ended the block before)
 *
 * A block without either, and those are most, is one load and one store. Otherwise each insertion writes its octet and
 * stores the rest of the block behind it again. Loads and stores may reach fifteen octets beyond the ends.
 */

/** Finds in block $block: $lf and $cr masks, and in $insert the places before which an octet is inserted. */
const FIND_INSERTIONS = `
  ;; $valid: a bit for each octet of the block that is input; the last block may be short.
  i32.const 65535
  i32.const 1
  local.get $end
  local.get $in
  i32.sub
  i32.shl
  i32.const 1
  i32.sub
  local.get $end
  local.get $in
  i32.sub
  i32.const 16
  i32.lt_u
  i32.eqz
  select
  local.set $valid

  local.get $in
  v128.load
  local.set $block

  local.get $block
  local.get $lfs
  i8x16.eq
  i8x16.bitmask
  local.get $valid
  i32.and
  local.set $lf

  local.get $block
  local.get $crs
  i8x16.eq
  i8x16.bitmask
  local.set $cr

  ;; $insert = $lf & (~($cr << 1 | $afterCr) | $keepCr)
  local.get $cr
  i32.const 1
  i32.shl
  local.get $afterCr
  i32.or
  i32.const -1
  i32.xor
  local.get $keepCr
  i32.or
  local.get $lf
  i32.and
  local.set $insert
`

/** Takes over from block to block: whether it ended in CR, in LF. */
const NEXT_BLOCK = `
  local.get $cr
  i32.const 15
  i32.shr_u
  local.set $afterCr
  local.get $in
  i32.const 16
  i32.add
  local.set $in
`

/** Sets up $end, the splatted octets, and what the octet before the input was. */
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
  local.get $previous
  i32.const 13
  i32.xor
  i32.eqz
  local.set $afterCr
  ;; $keepCr: 0 or all bits
  i32.const 0
  local.get $keepCr
  i32.sub
  local.set $keepCr
`

const ENCODE: WasmFunction = {
  name: 'encode',
  params: ['$in', '$length', '$out', '$previous', '$keepCr'],
  i32: ['$end', '$begin', '$valid', '$lf', '$cr', '$insert', '$afterCr', '$afterLf', '$place', '$target'],
  v128: ['$block', '$lfs', '$crs', '$dots'],
  body: `
    ${BEGIN}
    local.get $out
    local.set $begin
    i32.const 46
    i8x16.splat
    local.set $dots
    local.get $previous
    i32.const 10
    i32.xor
    i32.eqz
    local.set $afterLf

    block $done
      loop $blocks
        local.get $in
        local.get $end
        i32.lt_u
        i32.eqz
        br_if $done
        ${FIND_INSERTIONS}

        ;; $insert |= dot & ($lf << 1 | $afterLf) & $valid
        local.get $block
        local.get $dots
        i8x16.eq
        i8x16.bitmask
        local.get $lf
        i32.const 1
        i32.shl
        local.get $afterLf
        i32.or
        i32.and
        local.get $valid
        i32.and
        local.get $insert
        i32.or
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
            ;; clears the lowest bit
            local.get $insert
            local.get $insert
            i32.const 1
            i32.sub
            i32.and
            local.set $insert

            local.get $out
            local.get $place
            i32.add
            local.tee $target
            ;; CR if an LF stands here, else a dot
            i32.const 13
            i32.const 46
            local.get $lf
            local.get $place
            i32.shr_u
            i32.const 1
            i32.and
            select
            i32.store8

            ;; the block from here on once more, one octet further
            local.get $target
            i32.const 1
            i32.add
            local.get $in
            local.get $place
            i32.add
            v128.load
            v128.store

            local.get $out
            i32.const 1
            i32.add
            local.set $out
            br $insertions
          end
        end

        ;; $out += the octets of the block: 16, or what was left
        local.get $out
        local.get $valid
        i32.popcnt
        i32.add
        local.set $out
        local.get $lf
        i32.const 15
        i32.shr_u
        local.set $afterLf
        ${NEXT_BLOCK}
        br $blocks
      end
    end
    local.get $out
    local.get $begin
    i32.sub
  `,
}

/** How many octets are added to the line ends. */
const COUNT: WasmFunction = {
  name: 'count',
  params: ['$in', '$length', '$previous', '$keepCr'],
  i32: ['$end', '$valid', '$lf', '$cr', '$insert', '$afterCr', '$added'],
  v128: ['$block', '$lfs', '$crs'],
  body: `
    ${BEGIN}
    block $done
      loop $blocks
        local.get $in
        local.get $end
        i32.lt_u
        i32.eqz
        br_if $done
        ${FIND_INSERTIONS}
        local.get $insert
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
