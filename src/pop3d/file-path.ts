/** Path of a message file. Node takes a path of bytes only as a Buffer, so names that are not ASCII become one. */
export function filePath(maildir: string, folder: string, name: string): string | Buffer {
  if (/^[\x01-\x7f]*$/.test(name)) return `${maildir}/${folder}/${name}`
  return Buffer.concat([Buffer.from(`${maildir}/${folder}/`, 'utf8'), Buffer.from(name, 'latin1')])
}
