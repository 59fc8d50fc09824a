;; The kernel of line-encoder.ts, sixteen octets at a time.
;;
;; The loop also loads the sixteen octets that begin one octet before the block, so that each octet
;; and its predecessor are in the same lane. The encoder inserts
;;
;;   a CR before every LF whose predecessor is not a CR (with $keep_cr: before every LF),
;;   a dot before every dot whose predecessor is an LF.
;;
;; Most blocks need no insertion, and such a block costs two loads and one store. For each insertion
;; the loop writes the octet and stores the rest of the block again, one octet further.
;;
;; The caller writes the octet that precedes the input in the file before the input (LF at the
;; start), and sixteen zeros behind it. The output needs sixteen octets of room behind it.
(module
  (import "host" "memory" (memory 1))

  ;; Encodes $length octets at $in to $out and returns the number of octets written.
  (func (export "encode")
    (param $in i32) (param $length i32) (param $out i32) (param $keep_cr i32) (result i32)
    (local $end i32) (local $begin i32) (local $insert i32)
    (local $place i32) (local $source i32) (local $target i32)
    (local $block v128) (local $before v128) (local $drop v128)
    (local $lfs v128) (local $crs v128) (local $dots v128)
    (local.set $end (i32.add (local.get $in) (local.get $length)))
    (local.set $begin (local.get $out))
    (local.set $lfs (i8x16.splat (i32.const 10)))
    (local.set $crs (i8x16.splat (i32.const 13)))
    (local.set $dots (i8x16.splat (i32.const 46)))
    ;; All ones, so that a CR before an LF stays the only one; zeros with $keep_cr.
    (local.set $drop (i8x16.splat (i32.sub (local.get $keep_cr) (i32.const 1))))
    (block $done
      (loop $blocks
        (br_if $done (i32.ge_u (local.get $in) (local.get $end)))
        (local.set $block (v128.load align=1 (local.get $in)))
        (local.set $before (v128.load align=1 (i32.sub (local.get $in) (i32.const 1))))
        (local.set $insert
          (i8x16.bitmask
            (v128.or
              (v128.andnot
                (i8x16.eq (local.get $block) (local.get $lfs))
                (v128.and (i8x16.eq (local.get $before) (local.get $crs)) (local.get $drop)))
              (v128.and
                (i8x16.eq (local.get $block) (local.get $dots))
                (i8x16.eq (local.get $before) (local.get $lfs))))))
        (v128.store align=1 (local.get $out) (local.get $block))
        (block $unchanged
          (loop $insertions
            (br_if $unchanged (i32.eqz (local.get $insert)))
            (local.set $place (i32.ctz (local.get $insert)))
            (local.set $source (i32.add (local.get $in) (local.get $place)))
            (local.set $target (i32.add (local.get $out) (local.get $place)))
            ;; Clear the lowest bit of $insert.
            (local.set $insert (i32.and (local.get $insert) (i32.sub (local.get $insert) (i32.const 1))))
            (i32.store8 (local.get $target)
              (select (i32.const 46) (i32.const 13)
                (i32.eq (i32.load8_u (local.get $source)) (i32.const 46))))
            (v128.store align=1
              (i32.add (local.get $target) (i32.const 1))
              (v128.load align=1 (local.get $source)))
            (local.set $out (i32.add (local.get $out) (i32.const 1)))
            (br $insertions)))
        (local.set $out (i32.add (local.get $out) (i32.const 16)))
        (local.set $in (i32.add (local.get $in) (i32.const 16)))
        (br $blocks)))
    ;; The last block can reach beyond the end of the input.
    (i32.sub
      (i32.sub (local.get $out) (local.get $begin))
      (i32.sub (local.get $in) (local.get $end))))

  ;; Returns the number of CRs that "encode" inserts.
  (func (export "count")
    (param $in i32) (param $length i32) (param $keep_cr i32) (result i32)
    (local $end i32) (local $added i32)
    (local $lfs v128) (local $crs v128) (local $drop v128)
    (local.set $end (i32.add (local.get $in) (local.get $length)))
    (local.set $lfs (i8x16.splat (i32.const 10)))
    (local.set $crs (i8x16.splat (i32.const 13)))
    (local.set $drop (i8x16.splat (i32.sub (local.get $keep_cr) (i32.const 1))))
    (block $done
      (loop $blocks
        (br_if $done (i32.ge_u (local.get $in) (local.get $end)))
        (local.set $added
          (i32.add (local.get $added)
            (i32.popcnt
              (i8x16.bitmask
                (v128.andnot
                  (i8x16.eq (v128.load align=1 (local.get $in)) (local.get $lfs))
                  (v128.and
                    (i8x16.eq (v128.load align=1 (i32.sub (local.get $in) (i32.const 1))) (local.get $crs))
                    (local.get $drop)))))))
        (local.set $in (i32.add (local.get $in) (i32.const 16)))
        (br $blocks)))
    (local.get $added)))
