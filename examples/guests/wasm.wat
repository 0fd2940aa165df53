;; wasm.wat - the module of 08_wasm.c: a request handler as somebody else may have sent it.
(module
  (import "host" "allow" (func $allow (param $size i32) (param $nth i32) (result i32)))
  (memory (export "memory") 16)
  (global $nth (mut i32) (i32.const 0))

  ;; At 0 stand the 256 words of CRC-32's table, made once, at the start; at 1024 the caller puts a request.
  (func (export "buffer") (result i32) (i32.const 1024))
  (func $table (local $i i32) (local $bit i32) (local $word i32)
    (loop $next
      (local.set $word (local.get $i))
      (local.set $bit (i32.const 8))
      (loop $bits
        (local.set $word (i32.xor (i32.shr_u (local.get $word) (i32.const 1))
          (i32.and (i32.const 0xedb88320) (i32.sub (i32.const 0) (i32.and (local.get $word) (i32.const 1))))))
        (br_if $bits (local.tee $bit (i32.sub (local.get $bit) (i32.const 1)))))
      (i32.store (i32.shl (local.get $i) (i32.const 2)) (local.get $word))
      (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 256)))))
  (start $table)

  ;; The checksum of a request of that many bytes, should the host allow it.
  (func (export "crc") (param $size i32) (result i32) (local $at i32) (local $crc i32)
    (global.set $nth (i32.add (global.get $nth) (i32.const 1)))
    (if (i32.eqz (call $allow (local.get $size) (global.get $nth))) (then (unreachable)))
    (local.set $crc (i32.const -1))
    (local.set $at (i32.const 1024))
    (local.set $size (i32.add (local.get $size) (i32.const 1024)))
    (block $end (loop $next
      (br_if $end (i32.ge_u (local.get $at) (local.get $size)))
      (local.set $crc (i32.xor (i32.shr_u (local.get $crc) (i32.const 8))
        (i32.load (i32.shl (i32.and (i32.xor (local.get $crc) (i32.load8_u (local.get $at))) (i32.const 255))
          (i32.const 2)))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next)))
    (i32.xor (local.get $crc) (i32.const -1)))

  ;; What it may do wrong: read where it has no memory, call itself without end, never come back.
  (func (export "peek") (param $at i32) (result i32) (i32.load (local.get $at)))
  (func $deep (export "deep") (param $n i32) (result i32)
    (if (result i32) (local.get $n)
      (then (i32.add (call $deep (i32.sub (local.get $n) (i32.const 1))) (i32.const 1)))
      (else (i32.const 0))))
  (func (export "spin") (param i32) (result i32) (loop $again (br $again)) (unreachable)))
