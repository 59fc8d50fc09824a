import { randomBytes } from 'node:crypto'

/** A secret nobody chose: 192 random bits as 32 characters that need no quoting anywhere. */
export const randomSecret = (): string => randomBytes(24).toString('base64url')
