// Made from content-scan.wat by scripts/wasm-modules.ts. Do not edit.

/** The scan of message content as a WebAssembly module, in base64. */
export const CONTENT_SCAN_MODULE =
  'AGFzbQEAAAABBwFgAn9/AX8CEAEEaG9zdAZtZW1vcnkCAAEDAgEABwkBBXBsYWluAAAKhQEBggECAn8HeyAAIQIgACABQXBxaiED' +
  'QQr9DyEHQQ39DyEIQS79DyEJAkADQCAAIANPDQEgAP0AAAAhBCAAQQFr/QAAACEFIAQgB/0jIQYgBiAFIAj9I/1RIAQgCv0j/VAg' +
  'BCAJ/SMgBSAH/SP9Tv1Q/VMNASAAQRBqIQAMAAsLIAAgAmsL'
