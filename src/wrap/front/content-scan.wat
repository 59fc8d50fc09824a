;; The scan of content.ts, sixteen octets at a time.
;;
;; Beside the block, the loop loads the same sixteen octets one place earlier, so that each octet
;; and its predecessor stand in the same lane. A block is plain if it has
;;
;;   no NUL,
;;   no LF without a CR before it, and no CR without an LF behind it,
;;   no dot whose predecessor is an LF.
;;
;; The caller puts the predecessor of the first octet before the input.
(module
  (import "host" "memory" (memory 1))

  ;; Returns the octets of the plain blocks from $in on, up to $length.
  (func (export "plain") (param $in i32) (param $length i32) (result i32)
    (local $begin i32) (local $end i32)
    (local $block v128) (local $before v128) (local $isLf v128)
    (local $lfs v128) (local $crs v128) (local $dots v128) (local $nuls v128)
    (local.set $begin (local.get $in))
    ;; The last whole block begins before this place.
    (local.set $end (i32.add (local.get $in) (i32.and (local.get $length) (i32.const -16))))
    (local.set $lfs (i8x16.splat (i32.const 10)))
    (local.set $crs (i8x16.splat (i32.const 13)))
    (local.set $dots (i8x16.splat (i32.const 46)))
    (block $done
      (loop $blocks
        (br_if $done (i32.ge_u (local.get $in) (local.get $end)))
        (local.set $block (v128.load align=1 (local.get $in)))
        (local.set $before (v128.load align=1 (i32.sub (local.get $in) (i32.const 1))))
        (local.set $isLf (i8x16.eq (local.get $block) (local.get $lfs)))
        (br_if $done
          (v128.any_true
            (v128.or
              (v128.or
                ;; All ones where only one of the two is true.
                (v128.xor (local.get $isLf) (i8x16.eq (local.get $before) (local.get $crs)))
                (i8x16.eq (local.get $block) (local.get $nuls)))
              (v128.and
                (i8x16.eq (local.get $block) (local.get $dots))
                (i8x16.eq (local.get $before) (local.get $lfs))))))
        (local.set $in (i32.add (local.get $in) (i32.const 16)))
        (br $blocks)))
    (i32.sub (local.get $in) (local.get $begin))))
