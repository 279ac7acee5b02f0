import type { Socket } from 'node:net';

/** How long an answer may be under way when the connection turns out to be closed for writing. */
const LINGER_MS = 1000;

/**
 * Lets a socket read on after a write has failed. A receiver that refuses an upload (401, 409, 413) answers and closes while bytes
 * are still coming; the next write fails, and Node destroys the socket with the answer unread in it (8 of 100 refusals, on loopback).
 * Reading ends by itself a moment later, with the answer or with the reset.
 *
 * Works for a socket with `onread` only: a stream that has failed takes no more bytes from its handle.
 */
export function lingerAfterFailedWrite(socket: Socket): void {
  const destroy = socket.destroy.bind(socket);
  let lingering = false;
  socket.destroy = (error?: NodeJS.ErrnoException) => {
    const failedWrite = error?.syscall === 'write' && (error.code === 'EPIPE' || error.code === 'ECONNRESET');
    if (!failedWrite || lingering) return destroy(error);
    lingering = true;
    setTimeout(() => destroy(error), LINGER_MS).unref();
    return socket;
  };
}
