/** `node bench/growth.ts`: bench/pop3s.ts with other loads. */
process.argv.push('--growth')
await import('./pop3s.ts')
